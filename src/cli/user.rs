//! `--user NAME[:GROUP]`: whom the process goes on as.

use super::error::{Problem, quoted};
use super::plan::RunAs;

/// Reads the value; whether there is such a user is for the system to say.
///
/// # Errors
/// A name is missing, or there are too many.
pub(crate) fn parse(value: &str) -> Result<RunAs, Problem> {
    let (user, group) = match value.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (value, None),
    };
    let is_name = |name: &str| {
        let fits = |c: char| !c.is_whitespace() && !c.is_control() && !matches!(c, ':' | '/');
        !name.is_empty() && name.chars().all(fits)
    };
    if !is_name(user) || !group.is_none_or(is_name) {
        return Err(Problem::new(
            format!("--user {} is not a user", quoted(value)),
            "write --user NAME or --user NAME:GROUP, each a name or a number",
        ));
    }
    Ok(RunAs { user: user.to_owned(), group: group.map(str::to_owned) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_and_perhaps_a_group() {
        for (value, user, group) in [
            ("nobody", "nobody", None),
            ("nobody:nogroup", "nobody", Some("nogroup")),
            ("65534:65534", "65534", Some("65534")),
            ("DOM\\svc_relay", "DOM\\svc_relay", None),
        ] {
            let group = group.map(str::to_owned);
            let wanted = RunAs { user: user.to_owned(), group };
            assert_eq!(wanted.to_string(), value);
            assert_eq!(parse(value), Ok(wanted));
        }
        for value in ["", ":", "a:", ":b", "a:b:c", "a b", "a/b", "a\n"] {
            let message = parse(value).unwrap_err().to_string();
            assert!(message.contains("write --user NAME"), "{value}: {message}");
        }
    }
}
