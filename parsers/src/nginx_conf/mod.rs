//! x
pub(crate) mod tokens;
use alloc::string::String;
/// q
pub(crate) fn quoted(value: &str) -> String {
    let mut out = String::with_capacity(value.len() + 2);
    out.push('\'');
    for character in value.chars() {
        match character {
            '\'' | '\\' => out.extend(['\\', character]),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            '\n' => out.push_str("\\n"),
            other => out.push(other),
        }
    }
    out.push('\'');
    out
}
/// tmp
#[derive(Clone, Debug)]
pub enum Target {
    /// f
    File(String),
    /// o
    Other(String),
}
impl core::fmt::Display for Target {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("x")
    }
}
/// tmp
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct AccessLogDirective {
    pub target: Target,
    pub format_name: String,
    pub format: Option<String>,
    pub buffer_bytes: Option<u64>,
    pub flush_ms: Option<u64>,
    pub server_names: alloc::vec::Vec<String>,
}
/// tmp
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Discovery {
    pub logs: alloc::vec::Vec<AccessLogDirective>,
    pub problems: alloc::vec::Vec<String>,
}
/// tmp
pub fn access_logs(
    _: &str,
    _: &str,
    _: &str,
    _: &mut dyn FnMut(&str) -> alloc::vec::Vec<(String, String)>,
) -> Discovery {
    Discovery { logs: alloc::vec::Vec::new(), problems: alloc::vec::Vec::new() }
}
