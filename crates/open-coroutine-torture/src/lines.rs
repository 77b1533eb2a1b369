//! Lines that tell whether they are whole.
//!
//! `~writer:sequence:length:payload:sum`: the reader finds out if bytes of two
//! lines are mixed, or if one is missing or doubled. Other lines must not
//! contain the mark.

use std::collections::HashMap;

const MARK: char = '~';

/// A whole line, without its end.
pub(crate) fn make(writer: usize, sequence: u64, length: usize) -> String {
    let payload = payload(writer, sequence, length);
    let sum = sum(payload.as_bytes());
    format!("{MARK}{writer}:{sequence}:{length}:{payload}:{sum:016x}")
}

fn payload(writer: usize, sequence: u64, length: usize) -> String {
    let letter = |index: usize| (b'a' + ((index + writer + sequence as usize) % 26) as u8) as char;
    (0..length).map(letter).collect()
}

/// FNV-1a.
pub(crate) fn sum(bytes: &[u8]) -> u64 {
    let step = |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

/// The last line of a stream: how many marked ones came before it.
pub(crate) fn last(count: u64) -> String {
    format!("{MARK}={count}")
}

/// Checks the lines of one stream.
#[derive(Default)]
pub(crate) struct Checker {
    next: HashMap<usize, u64>,
    count: u64,
    is_ended: bool,
}

impl Checker {
    /// Takes the next line. Returns whether it is a marked one.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub(crate) fn take(&mut self, line: &str) -> Result<bool, String> {
        let Some(marked) = line.strip_prefix(MARK) else {
            return match line.contains(MARK) {
                true => Err(format!("torn line {line:?}")),
                false => Ok(false),
            };
        };
        if let Some(count) = marked.strip_prefix('=') {
            self.is_ended = true;
            return match count.parse() == Ok(self.count) {
                true => Ok(true),
                false => Err(format!("{} lines instead of {count}", self.count)),
            };
        }
        let fields: Vec<_> = marked.split(':').collect();
        let [writer, sequence, length, ..] = &fields[..] else {
            return Err(format!("torn line {line:?}"));
        };
        let (Ok(writer), Ok(sequence), Ok(length)) =
            (writer.parse(), sequence.parse(), length.parse())
        else {
            return Err(format!("torn line {line:?}"));
        };
        if line != make(writer, sequence, length) {
            return Err(format!("torn line {line:?}"));
        }
        let next = self.next.entry(writer).or_insert(0);
        if sequence != *next {
            return Err(format!(
                "writer {writer}: line {sequence} instead of {next}"
            ));
        }
        *next += 1;
        self.count += 1;
        Ok(true)
    }

    /// Whether the stream had its last line.
    pub(crate) fn is_ended(&self) -> bool {
        self.is_ended
    }

    /// How many marked lines there were.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_lines_in_order_pass() {
        let mut checker = Checker::default();
        assert_eq!(Ok(true), checker.take(&make(1, 0, 10)));
        assert_eq!(Ok(true), checker.take(&make(2, 0, 0)));
        assert_eq!(Ok(true), checker.take(&make(1, 1, 2000)));
        assert_eq!(Ok(false), checker.take("something else"));
        assert_eq!(Ok(true), checker.take(&last(3)));
        assert!(checker.is_ended());
    }

    #[test]
    fn torn_missing_and_doubled_lines_are_noticed() {
        let line = make(1, 0, 10);
        let (front, back) = line.split_at(9);
        for wrong in [
            front,
            back,
            &format!("{line}{line}"),
            &format!("x{line}"),
            &last(1),
        ] {
            // Its rear half alone is a line of somebody else.
            let is_plain = wrong == back;
            assert_eq!(is_plain, Checker::default().take(wrong).is_ok(), "{wrong}");
        }
        let mut checker = Checker::default();
        assert_eq!(Ok(true), checker.take(&line));
        assert!(checker.take(&line).is_err());
        assert!(checker.take(&make(1, 2, 10)).is_err());
    }
}
