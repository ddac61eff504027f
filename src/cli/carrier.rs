//! Links other than TCP for the persistent connection: `commin@`, `commout@`, `comm@` and `proc@`,
//! with the options of a serial line.

use std::path::PathBuf;

use super::error::{Problem, quoted};
use super::plan::{Checked, Device, FlowControl, LineOptions, Parity};
use super::{number, suggest};

/// The words before the `@`.
pub(super) const KINDS: [&str; 4] = ["comm", "commin", "commout", "proc"];

/// Options of a serial line.
pub(super) const OPTIONS: [&str; 6] = ["baud", "flow", "parity", "bits", "stop", "check"];

/// Slowest rate that a serial port of Linux has, but for the 0 that hangs up (termios(3)).
const BAUD_MIN: u32 = 50;

/// Fastest rate: that of the fastest converters from USB.
const BAUD_MAX: u32 = 12_000_000;

/// The value of one parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Carrier {
    /// `commin@PATH`.
    Input(PathBuf),
    /// `commout@PATH`.
    Output(PathBuf),
    /// `comm@PATH[?options]`.
    Both(Device),
    /// `proc@command line`.
    Command(String),
}

/// Parses the text after `sockmux:`.
pub(crate) fn parse(text: &str) -> Result<Carrier, Problem> {
    let Some((kind, what)) = text.split_once('@') else { return Err(no_carrier(text)) };
    match kind {
        "commin" => path(what).map(Carrier::Input),
        "commout" => path(what).map(Carrier::Output),
        "comm" => both(what).map(Carrier::Both),
        "proc" => command(what).map(Carrier::Command),
        _ => Err(Problem::new(
            format!("{} carries no persistent connection", quoted(&format!("{kind}@"))),
            suggest::remedy(kind, &KINDS),
        )),
    }
}

/// A device for one direction.
pub(crate) fn path(text: &str) -> Result<PathBuf, Problem> {
    if let Some((_, options)) = text.split_once('?').filter(|(_, options)| options.contains('=')) {
        return Err(Problem::new(
            format!("options ({}) are for a device both ways", quoted(options)),
            "write SERVER=sockmux:comm@DEVICE?option=value for a serial line, or leave them out",
        ));
    }
    whole_path(text)
}

/// A device both ways, with the options of a serial line behind `?`.
pub(crate) fn both(text: &str) -> Result<Device, Problem> {
    let (path, options) = match text.split_once('?') {
        Some((path, options)) => (path, Some(options)),
        None => (text, None),
    };
    let line = options.map_or_else(|| Ok(LineOptions::default()), line_options)?;
    Ok(Device::Both { path: whole_path(path)?, line })
}

fn whole_path(text: &str) -> Result<PathBuf, Problem> {
    if text.is_empty() {
        return Err(Problem::new("no device is named", "give its path, as in comm@/dev/ttyUSB0"));
    }
    if let Some(path) = text.strip_suffix(",-in") {
        return Err(Problem::new(
            "`,-in` has no meaning for the persistent connection",
            format!("write {} alone", quoted(path)),
        ));
    }
    no_nul(text, "path")?;
    Ok(PathBuf::from(text))
}

/// The rest of the parameter, to its end: a command line may contain anything.
fn command(text: &str) -> Result<String, Problem> {
    if text.trim().is_empty() {
        return Err(Problem::new(
            "no command is given",
            "write it behind proc@, as in SERVER=\"sockmux:proc@ssh hostX sockmux-uring \
             -Fsockmux -Q5432\"",
        ));
    }
    no_nul(text, "command")?;
    Ok(text.to_owned())
}

/// Refuses a NUL, which a parameter file can contain and an argument cannot.
fn no_nul(text: &str, what: &str) -> Result<(), Problem> {
    if text.contains('\0') {
        let remedy = format!("take it out: no {what} contains one");
        return Err(Problem::new("there is a zero byte in it", remedy));
    }
    Ok(())
}

fn no_carrier(text: &str) -> Problem {
    Problem::new(
        format!("{} is not a persistent connection", quoted(&format!("sockmux:{text}"))),
        "write SERVER=sockmux://host:port with both slashes, SERVER=sockmux with -P, \
         SERVER=sockmux:comm@DEVICE or SERVER=\"sockmux:proc@COMMAND\"",
    )
}

/// `name=value[&name=value]*`, also with a comma between two.
fn line_options(text: &str) -> Result<LineOptions, Problem> {
    let mut line = LineOptions { given: true, ..LineOptions::default() };
    let mut seen = Vec::new();
    for option in text.split(['&', ',']) {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        if seen.contains(&name) {
            return Err(Problem::new(format!("{name} is given twice"), "keep one of the two"));
        }
        set(&mut line, name, value)?;
        seen.push(name);
    }
    if line.flow == FlowControl::XonXoff && line.checked == Checked::Never {
        return Err(Problem::new(
            "flow=xonxoff takes two of the 256 bytes for itself, and check=no leaves all of them \
             as they are",
            "leave check=no out, or take flow=rtscts",
        ));
    }
    Ok(line)
}

fn set(line: &mut LineOptions, name: &str, value: &str) -> Result<(), Problem> {
    let unknown = |remedy: &str| {
        let what = format!("{} is nothing that {name} can be", quoted(value));
        Err(Problem::new(what, format!("give {remedy}")))
    };
    match (name, value) {
        ("baud", rate) => line.baud = baud(rate)?,
        ("flow", "none") => line.flow = FlowControl::None,
        ("flow", "rtscts") => line.flow = FlowControl::RtsCts,
        ("flow", "xonxoff") => line.flow = FlowControl::XonXoff,
        ("flow", _) => return unknown("flow=none, flow=rtscts or flow=xonxoff"),
        ("parity", "none") => line.parity = Parity::None,
        ("parity", "even") => line.parity = Parity::Even,
        ("parity", "odd") => line.parity = Parity::Odd,
        ("parity", _) => return unknown("parity=none, parity=even or parity=odd"),
        ("bits", "8") => line.data_bits = 8,
        ("bits", "5" | "6" | "7") => {
            return Err(Problem::new(
                format!("the tunnel's bytes have 8 bits, bits={value} would cut them"),
                "set the line to bits=8 at both ends",
            ));
        }
        ("bits", _) => return unknown("bits=8"),
        ("stop", "1") => line.stop_bits = 1,
        ("stop", "2") => line.stop_bits = 2,
        ("stop", _) => return unknown("stop=1 or stop=2"),
        ("check", "auto") => line.checked = Checked::Auto,
        ("check", "no") => line.checked = Checked::Never,
        ("check", _) => return unknown("check=auto (between two of ours) or check=no (never)"),
        _ => {
            return Err(Problem::new(
                format!("{} is not an option of a serial line", quoted(name)),
                suggest::remedy(name, &OPTIONS),
            ));
        }
    }
    Ok(())
}

fn baud(text: &str) -> Result<u32, Problem> {
    match number::whole(text) {
        Some(rate) if (BAUD_MIN..=BAUD_MAX).contains(&rate) => Ok(rate),
        _ => Err(Problem::new(
            format!("{} is not a rate", quoted(text)),
            format!("give {BAUD_MIN} to {BAUD_MAX} bits a second, as in baud=115200"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(path: &str, line: LineOptions) -> Carrier {
        Carrier::Both(Device::Both { path: path.into(), line })
    }

    #[test]
    fn every_carrier() {
        let plain = LineOptions::default();
        assert_eq!((plain.baud, plain.data_bits, plain.stop_bits), (115_200, 8, 1));
        let given = LineOptions { given: true, ..plain.clone() };
        let all = LineOptions {
            baud: 9600,
            flow: FlowControl::RtsCts,
            parity: Parity::Even,
            stop_bits: 2,
            checked: Checked::Never,
            ..given.clone()
        };
        let fast = LineOptions { baud: 3_000_000, flow: FlowControl::XonXoff, ..given.clone() };
        let odd = LineOptions { parity: Parity::Odd, ..given.clone() };
        for (text, wanted) in [
            ("commin@com0", Carrier::Input("com0".into())),
            ("commout@/a b/com@1", Carrier::Output("/a b/com@1".into())),
            ("comm@/dev/ttyUSB0", device("/dev/ttyUSB0", plain)),
            ("comm@t?baud=115200", device("t", given)),
            ("comm@t?baud=9600&flow=rtscts&parity=even&bits=8&stop=2&check=no", device("t", all)),
            ("comm@t?baud=3000000,flow=xonxoff", device("t", fast)),
            ("comm@t?parity=odd,check=auto&flow=none,stop=1", device("t", odd)),
            ("proc@ssh -p 22 a@b 'x,-in?y=z' | cat", {
                Carrier::Command("ssh -p 22 a@b 'x,-in?y=z' | cat".into())
            }),
        ] {
            assert_eq!(parse(text).as_ref(), Ok(&wanted), "{text}");
        }
    }

    #[test]
    fn zero_bytes_are_refused() {
        for text in ["commin@a\0", "comm@a\0", "proc@a\0"] {
            assert!(parse(text).unwrap_err().to_string().contains("zero byte"), "{text:?}");
        }
    }
}
