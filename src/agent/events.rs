//! What happened to the agent, as records of the events stream.
//!
//! `{"timestamp":..,"record":"event","event":"watchpost.agent.start","severity":"info","message":".."}` with
//! further attributes behind; severities are those of OpenTelemetry's log model (info, warn, error).

use serde_json::{Map, Value};

use crate::record::EpochMs;

/// How much an event matters: `Warn` is surprising and nothing was lost, `Error` is a loss or needs a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// A state changed in the ordinary way.
    Info,
    /// Surprising; nothing was lost.
    Warn,
    /// Something was lost, or a person must act.
    Error,
}

impl Severity {
    fn name(self) -> &'static str {
        match self {
            Severity::Info => "info",
            Severity::Warn => "warn",
            Severity::Error => "error",
        }
    }
}

/// One event.
#[derive(Clone, Debug)]
pub struct Event {
    /// Name under `watchpost.`, such as `watchpost.agent.start`.
    pub name: &'static str,
    /// How much it matters.
    pub severity: Severity,
    /// One sentence for people.
    pub message: String,
    /// Facts behind the sentence.
    pub attributes: Map<String, Value>,
}

impl Event {
    /// An event without attributes.
    pub fn new(name: &'static str, severity: Severity, message: impl Into<String>) -> Event {
        Event { name, severity, message: message.into(), attributes: Map::new() }
    }

    /// The event with one more fact.
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Event {
        self.attributes.insert(name.to_owned(), value.into());
        self
    }

    /// Appends the record, without a newline.
    pub fn write(&self, out: &mut Vec<u8>, at: EpochMs) {
        let quoted = |text: &str| Value::from(text).to_string();
        let head = format!(
            "{{\"timestamp\":{at},\"record\":\"event\",\"event\":{},\"severity\":{},\"message\":{}",
            quoted(self.name),
            quoted(self.severity.name()),
            quoted(&self.message)
        );
        out.extend_from_slice(head.as_bytes());
        for (name, value) in &self.attributes {
            out.extend_from_slice(format!(",{}:{value}", quoted(name)).as_bytes());
        }
        out.push(b'}');
    }

    /// Says the same in the agent's own log.
    pub fn log(&self) {
        let attributes = Value::Object(self.attributes.clone());
        match self.severity {
            Severity::Info => tracing::info!(event = self.name, %attributes, "{}", self.message),
            Severity::Warn => tracing::warn!(event = self.name, %attributes, "{}", self.message),
            Severity::Error => tracing::error!(event = self.name, %attributes, "{}", self.message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_begins_with_its_time() {
        let event = Event::new("watchpost.loss", Severity::Error, "3 \"lines\" lost").with("lines", 3);
        let mut out = Vec::new();
        event.write(&mut out, 1_764_000_000_000);
        assert_eq!(
            String::from_utf8(out).expect("utf-8"),
            "{\"timestamp\":1764000000000,\"record\":\"event\",\"event\":\"watchpost.loss\",\
             \"severity\":\"error\",\"message\":\"3 \\\"lines\\\" lost\",\"lines\":3}"
        );
    }
}
