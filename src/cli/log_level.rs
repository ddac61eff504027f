//! `--log-level`, `-v` and `RUST_LOG`: how much is logged.

use clap::ValueEnum;

/// What is logged: lines of this level and of those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// What ends the process
    Error,
    /// What an operator has to look at
    Warn,
    /// What an operator acts on, and how the process goes on
    Info,
    /// Every stream (-v)
    Debug,
    /// Also how each is connected and read (-vv)
    Trace,
}

/// That of so many `-v`.
impl From<u8> for LogLevel {
    fn from(verbosity: u8) -> LogLevel {
        match verbosity {
            0 => LogLevel::Info,
            1 => LogLevel::Debug,
            _ => LogLevel::Trace,
        }
    }
}

/// The level: as given, else that of the `-v`, else that of the variable. `None` as the level of a variable
/// that is set: it is none.
pub fn choose(given: Option<LogLevel>, verbosity: u8, variable: Option<&str>) -> Option<LogLevel> {
    let of_variable = |text: &str| LogLevel::from_str(text.trim(), true).ok();
    match (given, variable) {
        (Some(given), _) => Some(given),
        (None, Some(text)) if verbosity == 0 && !text.is_empty() => of_variable(text),
        (None, _) => Some(LogLevel::from(verbosity)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_option_outdoes_the_letters_and_these_the_variable() {
        use LogLevel::{Debug, Error, Info, Trace, Warn};
        for (given, verbosity, variable, level) in [
            (None, 0, None, Some(Info)),
            (None, 0, Some(""), Some(Info)),
            (None, 1, None, Some(Debug)),
            (None, 3, Some("error"), Some(Trace)),
            (None, 0, Some("WARN"), Some(Warn)),
            (None, 0, Some("sockmux=debug"), None),
            (Some(Error), 2, Some("info"), Some(Error)),
        ] {
            assert_eq!(choose(given, verbosity, variable), level, "{verbosity} {variable:?}");
        }
    }
}
