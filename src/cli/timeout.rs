//! `TIMEOUT=what:time[,what:time]*`, time = number and one of `d h m s` (seconds without);
//! 0 is "never".

use std::time::Duration;

use super::error::{Problem, plain, quoted};
use super::plan::Timeouts;
use super::suggest;
use crate::limits::TIMEOUT_SECS_MAX;

/// The supported items: the original's five, then ours.
pub(super) const ITEMS: [&str; 11] =
    ["acc", "con", "lin", "io", "silence", "ask", "hold", "keepalive", "drain", "udp", "resume"];

/// The items that an exit can have of its own.
const EXIT_ITEMS: [&str; 4] = ["con", "lin", "io", "ask"];

/// `TIMEOUT=` parameters while they are parsed. Remembers the items that were set, so that
/// contradictions are detected.
#[derive(Debug, Default)]
pub struct TimeoutReader {
    timeouts: Timeouts,
    set: Vec<(String, Option<Duration>)>,
    /// They are one exit's.
    of_exit: bool,
}

impl TimeoutReader {
    /// For the times of one exit.
    pub(crate) fn of_exit() -> TimeoutReader {
        TimeoutReader { of_exit: true, ..TimeoutReader::default() }
    }

    /// Reads the value of one parameter; things without effect go to `notices`.
    ///
    /// # Errors
    /// An unknown item, a time that is none, an item set twice to different times.
    pub fn add(&mut self, value: &str, notices: &mut Vec<String>) -> Result<(), Problem> {
        value.split(',').try_for_each(|item| self.add_item(item.trim(), notices))
    }

    /// Whether this item was set.
    pub(crate) fn is_set(&self, what: &str) -> bool {
        self.set.iter().any(|(set, _)| set == what)
    }

    /// The times in the end.
    pub fn finish(self) -> Timeouts {
        self.timeouts
    }

    /// The times of one exit, of a process that has these.
    pub(crate) fn finish_over(self, process: &Timeouts) -> Timeouts {
        let mut timeouts = process.clone();
        for (what, time) in self.set {
            if let Some(place) = place(&mut timeouts, &what) {
                *place = time;
            }
        }
        timeouts
    }

    fn add_item(&mut self, item: &str, notices: &mut Vec<String>) -> Result<(), Problem> {
        let Some((what, time)) = item.split_once(':') else {
            return Err(Problem::new(
                format!("{} is not what:time", quoted(item)),
                "write for example TIMEOUT=con:10,lin:30",
            ));
        };
        if !ITEMS.contains(&what) {
            return Err(Problem::new(
                format!("{} is not a time that can be set", quoted(what)),
                suggest::remedy(what, &ITEMS),
            ));
        }
        if self.of_exit && !EXIT_ITEMS.contains(&what) {
            return Err(Problem::new(
                format!("{what} is a time of the whole process"),
                format!(
                    "give TIMEOUT={} to the process itself, outside of the parentheses; an exit may \
                     have {} of its own",
                    plain(item),
                    EXIT_ITEMS.join(", ")
                ),
            ));
        }
        let time = parse_time(time)?;
        match self.set.iter().find(|(set, _)| set == what) {
            None => self.set.push((what.to_owned(), time)),
            Some((_, before)) if *before == time => {}
            Some((_, before)) => {
                return Err(Problem::new(
                    format!("{what} is already set to {}", show(*before)),
                    format!("keep one of the two {what} times"),
                ));
            }
        }
        match place(&mut self.timeouts, what) {
            Some(place) => *place = time,
            None => notices.push(
                "TIMEOUT=silence has no effect: a dead peer is found by TIMEOUT=keepalive"
                    .to_owned(),
            ),
        }
        Ok(())
    }
}

/// Where an item is kept; `None` if it has no effect.
fn place<'t>(timeouts: &'t mut Timeouts, what: &str) -> Option<&'t mut Option<Duration>> {
    Some(match what {
        "acc" => &mut timeouts.hello,
        "con" => &mut timeouts.connect,
        "lin" => &mut timeouts.linger,
        "io" => &mut timeouts.io,
        "ask" => &mut timeouts.ask,
        "hold" => &mut timeouts.hold,
        "keepalive" => &mut timeouts.keepalive,
        "drain" => &mut timeouts.drain,
        "udp" => &mut timeouts.udp,
        "resume" => &mut timeouts.resume,
        _ => return None,
    })
}

fn parse_time(text: &str) -> Result<Option<Duration>, Problem> {
    let (digits, unit_secs) = match text.as_bytes().last() {
        Some(b'd') => (&text[..text.len() - 1], 86_400),
        Some(b'h') => (&text[..text.len() - 1], 3_600),
        Some(b'm') => (&text[..text.len() - 1], 60),
        Some(b's') => (&text[..text.len() - 1], 1),
        _ => (text, 1),
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Problem::new(
            format!("{} is not a time", quoted(text)),
            "give seconds, or a whole number with d, h, m or s, as in 90 or 5m; 0 is never",
        ));
    }
    let secs = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(unit_secs));
    match secs {
        Some(0) => Ok(None),
        Some(secs) if secs <= TIMEOUT_SECS_MAX => Ok(Some(Duration::from_secs(secs))),
        _ => Err(Problem::new(
            format!("{} is longer than {} days", quoted(text), TIMEOUT_SECS_MAX / 86_400),
            "give a shorter time, or 0 for never",
        )),
    }
}

/// A time for a message.
pub(crate) fn show(time: Option<Duration>) -> String {
    time.map_or_else(|| "never".to_owned(), |time| format!("{} s", time.as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(values: &[&str]) -> Result<(Timeouts, Vec<String>), Problem> {
        let (mut reader, mut notices) = (TimeoutReader::default(), Vec::new());
        for value in values {
            reader.add(value, &mut notices)?;
        }
        Ok((reader.finish(), notices))
    }

    #[test]
    fn every_item_and_unit() {
        let secs = |s| Some(Duration::from_secs(s));
        let (timeouts, notices) = read(&[
            "acc:10,con:2m,lin:0,io:1h,ask:3",
            "hold:5s,keepalive:1d, drain:7,udp:1m,resume:2m",
        ])
        .unwrap();
        let wanted = Timeouts {
            hello: secs(10),
            connect: secs(120),
            linger: None,
            io: secs(3600),
            ask: secs(3),
            hold: secs(5),
            keepalive: secs(86_400),
            drain: secs(7),
            udp: secs(60),
            resume: secs(120),
        };
        assert_eq!((timeouts, notices.len()), (wanted, 0));
        assert_eq!(read(&["udp:0"]).unwrap().0.udp, None);
        let (timeouts, notices) = read(&["silence:0"]).unwrap();
        assert_eq!(timeouts, Timeouts::default());
        assert!(notices[0].contains("silence"));
        assert!(read(&["con:60", "con:1m"]).is_ok());
    }

    #[test]
    fn faults_name_the_item() {
        for (value, wanted) in [
            ("", "`` is not what:time"),
            ("10", "`10` is not what:time"),
            ("cno:10", "did you mean `con`?"),
            ("keepaliv:10", "did you mean `keepalive`?"),
            ("elephant:10", "known are acc, con"),
            ("con:", "`` is not a time"),
            ("con:-1", "`-1` is not a time"),
            ("con:1.5", "`1.5` is not a time"),
            ("con:m", "`m` is not a time"),
            ("con:10x", "`10x` is not a time"),
            ("con:1ä", "`1ä` is not a time"),
            ("con:366d", "longer than 365 days"),
            ("con:99999999999999999999", "longer than"),
            ("con:300000000000000000d", "longer than"),
            ("con:10,con:20", "con is already set to 10 s"),
            ("udp:60,udp:61", "udp is already set to 60 s"),
            ("udp:", "`` is not a time"),
        ] {
            let message = read(&[value]).unwrap_err().to_string();
            assert!(message.contains(wanted), "{value}: {message}");
        }
    }
}
