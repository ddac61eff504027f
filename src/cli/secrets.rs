//! Passwords that the user wrote into a word: they are repeated in no message, plan or log.

use std::borrow::Cow;

use super::error::Problem;

/// The texts before the passwords of `AUTHORIZER=`, in capitals: the parameter, and its list where the
/// parameter is misspelled.
const LISTS: [&str; 2] = ["AUTHORIZER=", "-LIST{"];

/// What may stand before a colon without being a user's name: paths and commands follow.
const NO_USERS: [&str; 2] = ["exec:", "unix:"];

/// A server within an option list.
const IN_LIST: &str = "(SERVER=";

/// The text with `...` in place of passwords: of a possible `AUTHORIZER=` and everything behind it, and
/// between `user:` and `@`. The parameter's name in a sentence is not affected.
pub(crate) fn without_secrets(text: &str) -> Cow<'_, str> {
    let (text, cut) = match lists_end(text) {
        Some(end) => (&text[..end], "..."),
        None => (text, ""),
    };
    let mut shown = String::new();
    for word in text.split_inclusive(char::is_whitespace) {
        match password(word) {
            Some((from, to)) => shown.extend([&word[..from], "...", &word[to..]]),
            None => shown.push_str(word),
        }
    }
    shown.push_str(cut);
    match cut.is_empty() && shown == text {
        true => Cow::Borrowed(text),
        false => Cow::Owned(shown),
    }
}

/// Refuses `user:password@host`. To be asked before a word is taken apart: a message about a part of it
/// could not tell a password from a port.
///
/// # Errors
/// There is one.
pub(super) fn check(text: &str) -> Result<(), Problem> {
    let value = text.split_once('=').map_or(text, |(_, value)| value);
    // Commands may be told passwords, and users are what AUTHORIZER= is for.
    if ["exec:", "sockmux:proc@"].iter().any(|command| value.starts_with(command)) {
        return Ok(());
    }
    let text = &text[..lists_end(text).unwrap_or(text.len())];
    match text.split_whitespace().any(|word| password(word).is_some()) {
        true => Err(Problem::new(
            "a user and a password stand before a host",
            "leave them out: the program that connects through it logs in by itself",
        )),
        false => Ok(()),
    }
}

/// Where a list of users begins.
fn lists_end(text: &str) -> Option<usize> {
    // Of the same length as the text.
    let capitals = text.to_ascii_uppercase();
    let begins = |end: &usize| capitals[*end..].starts_with(|next: char| !next.is_whitespace());
    let ends = LISTS.iter().filter_map(|secret| {
        capitals.match_indices(secret).map(|(at, _)| at + secret.len()).find(begins)
    });
    ends.min()
}

/// Where the password of `user:password@` begins and ends, in a word without blanks.
fn password(word: &str) -> Option<(usize, usize)> {
    // A host follows.
    let end = word.rfind('@').filter(|&at| {
        word[at + 1..].starts_with(|next: char| next.is_alphanumeric() || "[_.".contains(next))
    })?;
    let mut begin = word.find(['=', '`', '\'', '"']).filter(|&at| at < end).map_or(0, |at| at + 1);
    if let Some(at) = word[begin..end].rfind(IN_LIST) {
        begin += at + IN_LIST.len();
    }
    for before in NO_USERS {
        if word[begin..].starts_with(before) {
            begin += before.len();
        }
    }
    // `sockmux:WORD@`, as in `sockmux:comm@/dev/ttyS0`.
    let carrier = word[begin..].strip_prefix("sockmux:").and_then(|rest| rest.split_once('@'));
    if let Some((carrier, rest)) = carrier
        && carrier.bytes().all(|byte| byte.is_ascii_alphabetic())
    {
        begin = word.len() - rest.len();
    }
    if let Some(at) = word.get(begin..end)?.find("//") {
        begin += at + "//".len();
    }
    let colon = word[begin..end].find(':')?;
    Some((begin + colon + 1, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_repeated() {
        for (text, shown) in [
            ("AUTHORIZER=-list{a:b}:http", "AUTHORIZER=..."),
            ("authorizer=ab", "authorizer=..."),
            ("ü AUTHORISER=-list{a:b}", "ü AUTHORISER=-list{..."),
            ("SERVER=socks,-in(AUTHORIZER=-list{a:b})", "SERVER=socks,-in(AUTHORIZER=..."),
            ("AUTHORIZER= -list{a:b}", "AUTHORIZER= -list{..."),
            ("AUTHORIZER= of AUTHORIZER=ab", "AUTHORIZER= of AUTHORIZER=..."),
            ("by AUTHORIZER= too", "by AUTHORIZER= too"),
            ("PERMIT=*:*:*", "PERMIT=*:*:*"),
            ("SERVER=http://me:b@h:80,-in", "SERVER=http://me:...@h:80,-in"),
            ("SERVER=http://me:a:b@c=@h,-in", "SERVER=http://me:...@h,-in"),
            ("DEST=me:b/b@h:80", "DEST=me:...@h:80"),
            ("-Pme:b@h:80", "-Pme:...@h:80"),
            ("f:3: x=me:b@h `me:b@h`", "f:3: x=me:...@h `me:...@h`"),
            ("exec:curl -s http://me:b@h/ a@h", "exec:curl -s http://me:...@h/ a@h"),
            ("SERVER=sockmux:proc@ssh me@h:1", "SERVER=sockmux:proc@ssh me@h:1"),
            ("SERVER=sockmux:comm@/dev/a@b:1", "SERVER=sockmux:comm@/dev/a@b:1"),
            ("SERVER=sockmux:com@d", "SERVER=sockmux:com@d"),
            ("SERVER=x,-in(SERVER=sockmux:comm@x)", "SERVER=x,-in(SERVER=sockmux:comm@x)"),
            ("SERVER=x,-in(SERVER=x://me:b@h)", "SERVER=x,-in(SERVER=x://me:...@h)"),
            ("PORT=unix:/run/user@1000/s", "PORT=unix:/run/user@1000/s"),
            ("SERVER=http://me@h", "SERVER=http://me@h"),
            ("DEST=h:1:192.168.1.0/@", "DEST=h:1:192.168.1.0/@"),
            ("SERVER=http://[::1]:80", "SERVER=http://[::1]:80"),
        ] {
            assert_eq!(without_secrets(text), shown);
        }
    }

    #[test]
    fn words_with_a_password_before_a_host_are_refused() {
        for word in ["SERVER=sockmux://a:b@h:9000", "DEST=a:b@h:80", "-Pa:b@h:80", "a:b@h"] {
            assert!(check(word).is_err(), "{word}");
        }
        for word in [
            "SERVER=exec:curl http://a:b@h,-in",
            "SERVER=sockmux:proc@curl http://a:b@h",
            "SERVER=sockmux:commin@com0",
            "SERVER=http,-in(AUTHORIZER=-list{a:b@c})",
            "AUTHORIZER=-list{a:b@c}",
            "SERVER=http://me@h,-in",
        ] {
            assert_eq!(check(word), Ok(()), "{word}");
        }
    }
}
