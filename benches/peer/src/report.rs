//! What a peer prints: one JSON object a line.
//!
//! * a measurement: `{"peer":..,"workload":..,"metric":..,"value":..,"unit":..}`
//! * a workload that this peer cannot do: `{"peer":..,"workload":..,"skip":"why"}`
//! * a server that accepts connections: `{"peer":..,"workload":..,"listening":PORT}`
//!
//! Names of metrics and units are those of the other peers: the harness joins on them.

use std::io::Write;
use std::time::Duration;

/// Prints for one peer and one workload.
pub struct Report {
    /// The members that every line begins with.
    head: String,
}

impl Report {
    /// The peer's name is `BENCH_PEER` if set, so that one binary can stand for several variants.
    pub fn new(workload: &str) -> Self {
        let peer = std::env::var("BENCH_PEER").unwrap_or_else(|_| "open-coroutine".to_owned());
        Self {
            head: format!(
                "\"peer\":\"{}\",\"workload\":\"{}\"",
                plain(&peer),
                plain(workload)
            ),
        }
    }

    /// One measurement.
    pub fn metric(&self, name: &str, value: f64, unit: &str) {
        self.line(&format!(
            "\"metric\":\"{name}\",\"value\":{value},\"unit\":\"{unit}\""
        ));
    }

    /// How long each of `count` things took.
    pub fn nanoseconds_each(&self, name: &str, total: Duration, count: u64) {
        self.metric(name, total.as_nanos() as f64 / count as f64, "ns");
    }

    /// The server accepts connections now.
    pub fn listening(&self, port: u16) {
        self.line(&format!("\"listening\":{port}"));
    }

    /// This peer cannot do the workload.
    pub fn skip(&self, reason: &str) {
        self.line(&format!("\"skip\":\"{}\"", plain(reason)));
    }

    fn line(&self, members: &str) {
        let mut out = std::io::stdout().lock();
        // Flushed, because the harness waits for the line of a server that never ends. A reader
        // that went away is no reason to panic.
        let _ = writeln!(out, "{{{},{members}}}", self.head).and_then(|()| out.flush());
    }
}

/// Texts here are names and short sentences: what would need escaping becomes an apostrophe.
fn plain(text: &str) -> String {
    text.replace(|c: char| c == '"' || c == '\\' || c.is_control(), "'")
}
