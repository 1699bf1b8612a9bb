//! What visitors meet at a TLS server: certificates that run out or are for others, old versions, and HTTP that does not lead
//! to HTTPS.

use jiff::Timestamp;

use super::{Confidence, Dated, Draw, Evidence, Knowledge, Rule, Severity, Weakness};
use crate::facts::{
    CertificateFacts, CertificateSeen, FileVerdict, OldProtocol, PlainAnswer, TlsEndpoint, Trust,
};

const DAY_S: i64 = 24 * 60 * 60;
/// Who renews does so a month before the end; with three weeks left that did not go well.
const EXPIRING_S: i64 = 21 * DAY_S;
/// A person has to act now.
const AT_ONCE_S: i64 = 7 * DAY_S;
/// Of a short life the same parts as of one of 90 days: certificates of six days are renewed in their last ones.
const EXPIRING_PART: i64 = 4;
const AT_ONCE_PART: i64 = 12;

/// The last days, or none are left.
pub(super) static EXPIRES_AT_ONCE: Rule = Rule {
    id: "tls.certificate-expires-at-once",
    severity: Severity::High,
    title: "a certificate has expired or does so within days",
    draw: |known| {
        per_endpoint(known, |endpoint| {
            let (first, left_s) = first_to_end(endpoint)?;
            (left_s < at_once_s(first)).then(|| expiry(endpoint, first, left_s))
        })
    },
};

/// The last weeks.
pub(super) static EXPIRING: Rule = Rule {
    id: "tls.certificate-expiring",
    severity: Severity::Medium,
    title: "a certificate expires soon",
    draw: |known| {
        per_endpoint(known, |endpoint| {
            let (first, left_s) = first_to_end(endpoint)?;
            (at_once_s(first)..expiring_s(first)).contains(&left_s).then(|| expiry(endpoint, first, left_s))
        })
    },
};

/// Browsers refuse it.
pub(super) static WRONG_NAME: Rule = Rule {
    id: "tls.certificate-wrong-name",
    severity: Severity::High,
    title: "a certificate is for other names than that of its server",
    draw: |known| {
        per_endpoint(known, |endpoint| {
            let name = endpoint.name.as_deref().filter(|_| endpoint.fits_name == Some(false))?;
            let names = endpoint.chain.first().map(|leaf| leaf.names.join(", ")).unwrap_or_default();
            let what = format!("asked for {name}, the server sent a certificate for {names}");
            let advice = format!("have a certificate issued that names {name}, and serve it for that name");
            Some(weakness(endpoint, Confidence::Certain, what, advice))
        })
    },
};

/// Browsers refuse it, unless they were told of the authority.
pub(super) static UNTRUSTED: Rule = Rule {
    id: "tls.certificate-untrusted",
    severity: Severity::Medium,
    title: "a chain of certificates leads to no known authority",
    draw: |known| {
        let Some(facts) = endpoints(known) else { return Draw::Nothing };
        if facts.endpoints.iter().all(|endpoint| endpoint.trust == Trust::NoRoots) {
            return Draw::Unknown {
                why: "this system has no list of authorities".to_owned(),
                cure: "apt install ca-certificates, or name a list in SSL_CERT_FILE".to_owned(),
            };
        }
        per_endpoint(known, |endpoint| {
            let Trust::Untrusted(why) = &endpoint.trust else { return None };
            let advice = "serve the whole chain (fullchain.pem: the server's certificate, then those of the \
                          authorities between); an authority of your own goes into this system's list \
                          (update-ca-certificates)";
            Some(weakness(endpoint, Confidence::Likely, why.clone(), advice.to_owned()))
        })
    },
};

/// Renewed and not reloaded, mostly.
pub(super) static DIFFERS_FROM_FILE: Rule = Rule {
    id: "tls.certificate-differs-from-file",
    severity: Severity::High,
    title: "the certificate that is served is not the one in the file",
    draw: |known| {
        let Some(facts) = endpoints(known) else { return Draw::Nothing };
        let found = per_endpoint(known, |endpoint| {
            let FileVerdict::Differs { path, holds, written_at } = &endpoint.file else { return None };
            let served = endpoint.chain.first()?;
            let is_renewed = holds.not_before_s > served.not_before_s;
            let advice = if is_renewed {
                "it was renewed and not reloaded: nginx -s reload (systemctl reload nginx, systemctl reload haproxy); put that \
                 into the hook of the renewal"
            } else {
                "find out which file the server reads; a reload would serve what stands there"
            };
            let mut found = weakness(
                endpoint,
                Confidence::Certain,
                format!("served: {}", dates(served)),
                advice.to_owned(),
            );
            let written = written_at.map(|at| format!(", written {}", day(at / 1000))).unwrap_or_default();
            found.evidence.push(Evidence {
                what: format!("in the file{written}: {}", dates(holds)),
                place: path.clone(),
                at: endpoint.at,
            });
            Some(found)
        });
        let unread = facts.endpoints.iter().find_map(|endpoint| match &endpoint.file {
            FileVerdict::Unreadable { why, cure } => Some((why.clone(), cure.clone())),
            _ => None,
        });
        match (found, unread) {
            (Draw::Clear, Some((why, cure))) => Draw::Unknown { why, cure },
            (found, _) => found,
        }
    },
};

/// Both were withdrawn in 2021 (RFC 8996).
pub(super) static WEAK_PROTOCOL: Rule = Rule {
    id: "tls.weak-protocol",
    severity: Severity::Medium,
    title: "a server speaks a version of TLS that was withdrawn",
    draw: |known| {
        per_endpoint(known, |endpoint| {
            let spoken: Vec<&str> = endpoint
                .old_protocols
                .iter()
                .filter(|(_, answer)| *answer == OldProtocol::Accepted)
                .map(|(version, _)| *version)
                .collect();
            if spoken.is_empty() {
                return None;
            }
            let what = format!("offered nothing else, the server went through with {}", spoken.join(" and "));
            let advice =
                "nginx: ssl_protocols TLSv1.2 TLSv1.3; HAProxy: ssl-default-bind-options ssl-min-ver TLSv1.2";
            let mut found = weakness(endpoint, Confidence::Certain, what, advice.to_owned());
            found.subject = endpoint.address.clone();
            Some(found)
        })
    },
};

/// Visitors who type a name come over plain HTTP.
pub(super) static NO_REDIRECT: Rule = Rule {
    id: "http.no-redirect",
    severity: Severity::Medium,
    title: "plain HTTP answers instead of leading to HTTPS",
    draw: |known| {
        per_endpoint(known, |endpoint| {
            let Some(PlainAnswer::Answered { status, location }) = &endpoint.plain else { return None };
            let to = location.as_deref().unwrap_or_default();
            let is_secure = to.get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://"));
            let leads = matches!(status, 301 | 302 | 303 | 307 | 308) && is_secure;
            // What is refused there is not served in the clear; who must show a password shows it.
            let serves = *status < 400 || *status == 401;
            if leads || !serves {
                return None;
            }
            let what = match location {
                Some(location) => format!("GET / on port 80: {status}, Location {location}"),
                None => format!("GET / on port 80: {status}"),
            };
            let advice = "nginx: server { listen 80; server_name ...; return 301 https://$host$request_uri; } HAProxy: http-request \
                          redirect scheme https unless { ssl_fc }";
            Some(weakness(endpoint, Confidence::Certain, what, advice.to_owned()))
        })
    },
};

/// Visitors can be kept from HTTPS by who stands between.
pub(super) static HSTS_MISSING: Rule = Rule {
    id: "http.hsts-missing",
    severity: Severity::Low,
    title: "HTTPS does not tell visitors to stay with it",
    draw: |known| {
        per_endpoint(known, |endpoint| {
            let https = endpoint.https.as_ref()?;
            let is_set = https.hsts.as_deref().is_some_and(|value| {
                let mut parts = value.split(';').map(str::trim);
                let age = parts
                    .find_map(|part| part.to_ascii_lowercase().strip_prefix("max-age=").map(str::to_owned));
                age.is_some_and(|age| age.trim_matches('"').parse::<u64>().is_ok_and(|age| age > 0))
            });
            if is_set {
                return None;
            }
            let (what, confidence) = match &https.hsts {
                Some(value) => (
                    format!("HEAD /: {}, Strict-Transport-Security: {value}", https.status),
                    Confidence::Certain,
                ),
                // nginx leaves added headers out of errors, unless they are added `always`.
                None if https.status >= 400 => (
                    format!("HEAD /: {} without Strict-Transport-Security", https.status),
                    Confidence::Likely,
                ),
                None => (
                    format!("HEAD /: {} without Strict-Transport-Security", https.status),
                    Confidence::Certain,
                ),
            };
            let advice = "nginx: add_header Strict-Transport-Security \"max-age=31536000\" always; begin with a short max-age, it \
                          cannot be taken back";
            Some(weakness(endpoint, confidence, what, advice.to_owned()))
        })
    },
};

fn endpoints<'a>(known: &Knowledge<'a>) -> Option<&'a CertificateFacts> {
    known.certificates.map(|Dated { facts, .. }| facts).filter(|facts| !facts.endpoints.is_empty())
}

fn per_endpoint(known: &Knowledge<'_>, judge: impl Fn(&TlsEndpoint) -> Option<Weakness>) -> Draw {
    let Some(facts) = endpoints(known) else { return Draw::Nothing };
    let found: Vec<Weakness> = facts.endpoints.iter().filter_map(judge).collect();
    if found.is_empty() { Draw::Clear } else { Draw::Found(found) }
}

fn weakness(endpoint: &TlsEndpoint, confidence: Confidence, what: String, advice: String) -> Weakness {
    let evidence = vec![Evidence { what, place: endpoint.address.clone(), at: endpoint.at }];
    Weakness { subject: endpoint.subject(), confidence, evidence, advice }
}

/// How long before the end a person has to act at once.
fn at_once_s(certificate: &CertificateSeen) -> i64 {
    AT_ONCE_S.min(life_s(certificate) / AT_ONCE_PART)
}

/// How long before the end one has to act.
fn expiring_s(certificate: &CertificateSeen) -> i64 {
    EXPIRING_S.min(life_s(certificate) / EXPIRING_PART)
}

fn life_s(certificate: &CertificateSeen) -> i64 {
    certificate.not_after_s.saturating_sub(certificate.not_before_s).max(0)
}

/// The certificate of the chain that ends first, and the seconds that were left of it. A root that is sent along need not
/// hold: visitors have their own.
fn first_to_end(endpoint: &TlsEndpoint) -> Option<(&CertificateSeen, i64)> {
    let is_needed = |(index, one): &(usize, &CertificateSeen)| *index == 0 || one.subject != one.issuer;
    let needed = endpoint.chain.iter().enumerate().filter(is_needed);
    let (_, first) = needed.min_by_key(|(_, one)| one.not_after_s)?;
    Some((first, first.not_after_s.saturating_sub(endpoint.at / 1000)))
}

fn expiry(endpoint: &TlsEndpoint, first: &CertificateSeen, left_s: i64) -> Weakness {
    let end = day(first.not_after_s);
    let what = if left_s < 0 {
        format!("expired {end}, {} days ago: {}", -left_s / DAY_S, first.subject)
    } else {
        format!("expires {end}, in {} days: {}", left_s / DAY_S, first.subject)
    };
    let advice = "renew it and reload the server: certbot renew && systemctl reload nginx";
    weakness(endpoint, Confidence::Certain, what, advice.to_owned())
}

fn dates(certificate: &CertificateSeen) -> String {
    format!(
        "serial {}, from {} to {}",
        certificate.serial,
        day(certificate.not_before_s),
        day(certificate.not_after_s)
    )
}

/// A moment as people read it.
fn day(seconds: i64) -> String {
    Timestamp::from_second(seconds).map_or_else(|_| format!("{seconds} s"), |at| at.to_string())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::facts::HttpsAnswer;

    const NOW_S: i64 = 1_800_000_000;

    fn endpoint() -> TlsEndpoint {
        let leaf = CertificateSeen {
            subject: "CN=a.example".to_owned(),
            issuer: "CN=authority".to_owned(),
            names: vec!["a.example".to_owned()],
            serial: "01".to_owned(),
            not_before_s: NOW_S - 30 * DAY_S,
            not_after_s: NOW_S + 60 * DAY_S,
        };
        TlsEndpoint {
            address: "127.0.0.1:443".to_owned(),
            name: Some("a.example".to_owned()),
            at: NOW_S * 1000,
            protocol: "TLSv1.3".to_owned(),
            took: Duration::from_millis(3),
            chain: vec![leaf],
            trust: Trust::Trusted,
            fits_name: Some(true),
            file: FileVerdict::Same,
            old_protocols: vec![("TLSv1.0", OldProtocol::Refused)],
            https: Some(HttpsAnswer { status: 200, hsts: Some("max-age=\"60\"; preload".to_owned()) }),
            plain: Some(PlainAnswer::Closed),
        }
    }

    /// What each rule of this file says of one endpoint.
    fn drawn(change: impl FnOnce(&mut TlsEndpoint)) -> Vec<&'static str> {
        let mut endpoint = endpoint();
        change(&mut endpoint);
        let facts = CertificateFacts { endpoints: vec![endpoint] };
        let known = Knowledge {
            certificates: Some(Dated { facts: &facts, at: NOW_S * 1000 }),
            ..Knowledge::default()
        };
        let rules = [
            &EXPIRES_AT_ONCE,
            &EXPIRING,
            &WRONG_NAME,
            &UNTRUSTED,
            &DIFFERS_FROM_FILE,
            &WEAK_PROTOCOL,
            &NO_REDIRECT,
            &HSTS_MISSING,
        ];
        let found = rules.into_iter().filter(|rule| (rule.draw)(&known) != Draw::Clear);
        found.map(|rule| rule.id).collect()
    }

    #[test]
    fn days_left_decide_by_the_length_of_a_life() {
        let at_once = ["tls.certificate-expires-at-once"];
        let left = |left_s: i64, life_s: i64| {
            drawn(|endpoint| {
                endpoint.chain[0].not_after_s = NOW_S + left_s;
                endpoint.chain[0].not_before_s = NOW_S + left_s - life_s;
            })
        };
        assert_eq!(left(21 * DAY_S, 90 * DAY_S), [""; 0]);
        assert_eq!(left(21 * DAY_S - 1, 90 * DAY_S), ["tls.certificate-expiring"]);
        assert_eq!(left(7 * DAY_S, 90 * DAY_S), ["tls.certificate-expiring"]);
        assert_eq!(left(7 * DAY_S - 1, 90 * DAY_S), at_once);
        assert_eq!(left(-1, 90 * DAY_S), at_once);
        // Six days of life: none is wrong before the last one and a half.
        assert_eq!(left(3 * DAY_S, 6 * DAY_S), [""; 0]);
        assert_eq!(left(DAY_S, 6 * DAY_S), ["tls.certificate-expiring"]);
        assert_eq!(left(DAY_S / 4, 6 * DAY_S), at_once);
        // What was sent along counts, but for a root.
        let beside = |subject: &str| {
            drawn(|endpoint| {
                let mut other = endpoint.chain[0].clone();
                (other.subject, other.not_after_s) = (subject.to_owned(), NOW_S - 1);
                endpoint.chain.push(other);
            })
        };
        assert_eq!(beside("CN=between"), at_once);
        assert_eq!(beside("CN=authority"), [""; 0]);
    }

    #[test]
    fn each_rule_has_its_own_evidence() {
        assert_eq!(drawn(|_| {}), [""; 0]);
        assert_eq!(drawn(|one| one.fits_name = Some(false)), ["tls.certificate-wrong-name"]);
        assert_eq!(drawn(|one| one.trust = Trust::Untrusted("x".to_owned())), ["tls.certificate-untrusted"]);
        assert_eq!(drawn(|one| one.trust = Trust::NoRoots), ["tls.certificate-untrusted"]);
        let unreadable = FileVerdict::Unreadable { why: "shut".to_owned(), cure: "open".to_owned() };
        assert_eq!(drawn(|one| one.file = unreadable), ["tls.certificate-differs-from-file"]);
        assert_eq!(drawn(|one| one.old_protocols[0].1 = OldProtocol::Accepted), ["tls.weak-protocol"]);
        assert_eq!(drawn(|one| one.old_protocols[0].1 = OldProtocol::Unknown("x".to_owned())), [""; 0]);
        let plain = |status, location: &str| {
            let location = (!location.is_empty()).then(|| location.to_owned());
            drawn(|one| one.plain = Some(PlainAnswer::Answered { status, location }))
        };
        assert_eq!(plain(308, "HTTPS://a.example/"), [""; 0]);
        assert_eq!(plain(404, ""), [""; 0]);
        for (status, location) in
            [(200, ""), (301, "http://a.example/"), (401, ""), (300, "https://x"), (302, "")]
        {
            assert_eq!(plain(status, location), ["http.no-redirect"], "{status} {location}");
        }
        let hsts = |value: Option<&str>| {
            drawn(|one| one.https = Some(HttpsAnswer { status: 200, hsts: value.map(str::to_owned) }))
        };
        assert_eq!(hsts(None), ["http.hsts-missing"]);
        assert_eq!(hsts(Some("max-age=0")), ["http.hsts-missing"]);
        assert_eq!(hsts(Some("includeSubDomains; Max-Age=1")), [""; 0]);
    }

    #[test]
    fn a_file_that_is_newer_was_not_reloaded() {
        let mut endpoint = endpoint();
        let mut holds = endpoint.chain[0].clone();
        holds.not_before_s += DAY_S;
        endpoint.file =
            FileVerdict::Differs { path: "/c.pem".to_owned(), holds, written_at: Some(NOW_S * 1000) };
        let facts = CertificateFacts { endpoints: vec![endpoint] };
        let known = Knowledge { certificates: Some(Dated { facts: &facts, at: 0 }), ..Knowledge::default() };
        let Draw::Found(found) = (DIFFERS_FROM_FILE.draw)(&known) else { panic!("it is found") };
        assert!(found[0].advice.contains("not reloaded"), "{found:?}");
        assert!(found[0].evidence[1].what.contains("written 2027-01-15T08:00:00Z"), "{found:?}");
        assert_eq!(found[0].subject, "a.example at 127.0.0.1:443");
    }
}
