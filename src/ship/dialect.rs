//! The Sumo dialect: the headers of a request.
//!
//! Sumo Logic, "Upload logs to an HTTP source" and "Metadata naming conventions" (lengths), "Fields" (30 pairs, key 255,
//! value 200 characters). Fields know no escaping: as Sumo's own exporter does, ',' becomes '_', '=' in a value becomes
//! ':', and a line break '_'. Whatever an operator or a file name put into a value, this must never fail or panic.

use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};

use super::mailbox::Outgoing;

/// Longest `X-Sumo-Category`, in characters.
const CATEGORY_CHARACTERS_MAX: usize = 1024;
/// Longest `X-Sumo-Host` and `X-Sumo-Name`, in characters.
const NAME_CHARACTERS_MAX: usize = 128;
/// Most pairs in `X-Sumo-Fields`; the destination drops the rest with a warning.
const FIELDS_MAX: usize = 30;
/// Longest key of a field, in characters.
const FIELD_KEY_CHARACTERS_MAX: usize = 255;
/// Longest value of a field, in characters.
const FIELD_VALUE_CHARACTERS_MAX: usize = 200;
/// Longest `Idempotency-Key`, in characters; ours have about 60.
const KEY_CHARACTERS_MAX: usize = 255;

/// The headers of one batch: the same at every attempt.
pub(super) fn headers(outgoing: &Outgoing, client: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    let category = one_line(&outgoing.category, CATEGORY_CHARACTERS_MAX);
    let values = [
        (CONTENT_TYPE, one_line(outgoing.content_type, NAME_CHARACTERS_MAX)),
        (HeaderName::from_static("x-sumo-category"), category),
        (HeaderName::from_static("x-sumo-name"), one_line(&outgoing.name, NAME_CHARACTERS_MAX)),
        (HeaderName::from_static("x-sumo-host"), one_line(&outgoing.host, NAME_CHARACTERS_MAX)),
        (HeaderName::from_static("x-sumo-fields"), fields(&outgoing.fields)),
        (HeaderName::from_static("x-sumo-client"), one_line(client, NAME_CHARACTERS_MAX)),
        (HeaderName::from_static("idempotency-key"), one_line(&outgoing.key, KEY_CHARACTERS_MAX)),
    ];
    for (name, text) in values {
        // `one_line` leaves nothing that a header cannot carry; should that ever be wrong, a header less is
        // better than a batch that cannot be sent.
        if let (false, Ok(value)) = (text.is_empty(), HeaderValue::from_bytes(text.as_bytes())) {
            headers.insert(name, value);
        }
    }
    headers
}

/// A header's value: control characters become '_', ends are trimmed, the length is bounded.
fn one_line(text: &str, characters_max: usize) -> String {
    let clean: String =
        text.trim().chars().map(|c| if c.is_control() { '_' } else { c }).take(characters_max).collect();
    clean.trim_end().to_owned()
}

/// `key=value` pairs, cleaned; pairs without a key or a value are left out, as the destination would do with a warning.
fn fields(text: &str) -> String {
    let pairs = text.split(',').filter_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        let key = one_line(key, FIELD_KEY_CHARACTERS_MAX);
        let value = one_line(&value.replace('=', ":"), FIELD_VALUE_CHARACTERS_MAX);
        (!key.is_empty() && !value.is_empty()).then(|| format!("{key}={value}"))
    });
    pairs.take(FIELDS_MAX).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::outgoing;
    use super::*;

    #[test]
    fn a_batch_has_its_headers() {
        let headers = headers(&outgoing(7), "watchpost/1.2.3");
        let told: Vec<(&str, &str)> = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().expect("plain text")))
            .collect();
        let expected = [
            ("content-encoding", "gzip"),
            ("content-type", "application/x-www-form-urlencoded"),
            ("x-sumo-category", "watchpost/nginx/access"),
            ("x-sumo-name", "nginx-access"),
            ("x-sumo-host", "web1"),
            ("x-sumo-fields", "env=prod"),
            ("x-sumo-client", "watchpost/1.2.3"),
            ("idempotency-key", "agent/1/7"),
        ];
        assert_eq!(told.len(), expected.len());
        for pair in expected {
            assert!(told.contains(&pair), "{pair:?} in {told:?}");
        }
    }

    #[test]
    fn fields_are_cleaned() {
        for (text, expected) in [
            ("", ""),
            ("a=1,b=2", "a=1,b=2"),
            (" a = 1 , b=x=y ", "a=1,b=x:y"),
            ("a=,=b,c,d=4", "d=4"),
            ("a=one\r\nX-Evil: 1", "a=one__X-Evil: 1"),
        ] {
            assert_eq!(fields(text), expected, "{text}");
        }
        let many: Vec<String> = (0..40).map(|index| format!("k{index}=v")).collect();
        assert_eq!(fields(&many.join(",")).split(',').count(), 30);
        assert_eq!(fields(&format!("k={}", "v".repeat(500))).len(), 202);
    }

    #[test]
    fn empty_values_leave_their_header_out() {
        let mut batch = outgoing(1);
        batch.host = " \t".to_owned();
        batch.fields = String::new();
        let headers = headers(&batch, "watchpost/1");
        assert!(!headers.contains_key("x-sumo-host") && !headers.contains_key("x-sumo-fields"));
    }

    proptest! {
        #[test]
        fn any_text_makes_a_header(text in "\\PC*|(?s).*") {
            let mut batch = outgoing(1);
            for slot in [&mut batch.category, &mut batch.name, &mut batch.host, &mut batch.fields] {
                slot.clone_from(&text);
            }
            let headers = headers(&batch, &text);
            let sane = one_line(&text, usize::MAX);
            prop_assert_eq!(headers.contains_key("x-sumo-category"), !sane.is_empty());
            for value in headers.values() {
                prop_assert!(value.as_bytes().iter().all(|byte| *byte >= 0x20 && *byte != 0x7f));
            }
        }
    }
}
