//! The command line: `<workload> [--key value | --key=value]..`.

use std::collections::HashMap;
use std::process::exit;
use std::str::FromStr;
use std::time::Duration;

/// What the harness asked for. Keys that a workload does not know are ignored, since the
/// harness passes the same ones to every peer.
pub struct Options {
    /// The first argument.
    pub workload: String,
    values: HashMap<String, String>,
}

impl Options {
    /// Ends the process with a usage line if the arguments cannot be read.
    pub fn from_command_line() -> Self {
        Self::parse(std::env::args().skip(1)).unwrap_or_else(|problem| {
            eprintln!("{problem}\nusage: bench-open-coroutine <workload> [--key value]..");
            exit(2)
        })
    }

    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let workload = arguments.next().ok_or("no workload")?;
        let mut values = HashMap::new();
        while let Some(argument) = arguments.next() {
            let key = argument
                .strip_prefix("--")
                .ok_or_else(|| format!("unexpected argument {argument}"))?;
            let (key, value) = match key.split_once('=') {
                Some((key, value)) => (key.to_owned(), value.to_owned()),
                None => (
                    key.to_owned(),
                    arguments
                        .next()
                        .ok_or_else(|| format!("{argument} has no value"))?,
                ),
            };
            values.insert(key, value);
        }
        Ok(Self { workload, values })
    }

    /// `--workers`, at least one.
    pub fn workers(&self) -> usize {
        self.value("workers", 1_usize).max(1)
    }

    /// `--stack`, in bytes; none means the default of the runtime.
    pub fn stack_size(&self) -> Option<usize> {
        match self.value("stack", 0) {
            0 => None,
            bytes => Some(bytes),
        }
    }

    /// `--n`: how many repetitions, tasks or messages. The harness may write `1e6`.
    pub fn count(&self, default: u64) -> u64 {
        self.value("n", default as f64) as u64
    }

    /// `--sleep`, in seconds.
    pub fn sleep(&self, default: f64) -> Duration {
        Duration::from_secs_f64(self.value("sleep", default))
    }

    /// `--secs`: for how long to measure.
    pub fn duration(&self, default: f64) -> Duration {
        Duration::from_secs_f64(self.value("secs", default))
    }

    /// `--port` of a server.
    pub fn port(&self) -> u16 {
        self.value("port", 7700)
    }

    /// Whether the value of `key` is not 0.
    pub fn is_set(&self, key: &str, default: bool) -> bool {
        self.value(key, u64::from(default)) != 0
    }

    fn value<T: FromStr>(&self, key: &str, default: T) -> T {
        let Some(text) = self.values.get(key) else {
            return default;
        };
        text.parse().unwrap_or_else(|_| {
            eprintln!("bad value {text} of --{key}");
            exit(2)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Options;

    fn parse(line: &str) -> Result<Options, String> {
        Options::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn both_spellings_of_a_value_are_read() {
        let options = parse("spawn --workers 2 --n=1e6").unwrap();
        assert_eq!("spawn", options.workload);
        assert_eq!(2, options.workers());
        assert_eq!(1_000_000, options.count(1));
        assert_eq!(None, options.stack_size());
    }

    #[test]
    fn a_key_without_a_value_is_refused() {
        assert!(parse("spawn --n").is_err());
        assert!(parse("spawn n").is_err());
        assert!(parse("").is_err());
    }
}
