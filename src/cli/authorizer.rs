//! `AUTHORIZER="-list{user:password,...}[:protoList]"`: users of proxies. The original's own lists
//! and other sources of users are not supported.
//!
//! No message repeats the value: it holds passwords.

use std::fmt;

use super::error::{Problem, plain};
use super::plan::{Exit, ExitKind, Plan, Proxy};
use crate::limits::{SOCKS_TEXT_BYTES, USERS_MAX};

/// `AUTHORIZER=`: users that the proxies named admit exclusively.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authorizer {
    /// The proxies that it applies to, all of which can authenticate.
    pub protocols: Vec<Proxy>,
    /// No protocol was named: all proxies must authenticate.
    pub is_for_all: bool,
    /// At least one.
    pub users: Vec<User>,
}

/// A user of a proxy.
#[derive(Clone, PartialEq, Eq)]
pub struct User {
    /// Not empty, without a colon; at most 255 bytes, as SOCKS 5 has it (RFC 1929).
    pub name: String,
    /// Not empty; at most 255 bytes.
    pub password: String,
}

impl Authorizer {
    /// Whether such a proxy authenticates its users.
    pub fn is_of(&self, proxy: Proxy) -> bool {
        self.protocols.iter().any(|of| of.meets(proxy))
    }
}

/// Without the password, which must not be logged.
impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Plan {
    /// The users that an exit admits by a protocol; `None` means no authentication. The exit's own lists
    /// replace the process's.
    pub fn users(&self, exit: &Exit, proxy: Proxy) -> Option<Vec<User>> {
        let own = &exit.options.authorizers;
        let all = if own.is_empty() { &self.authorizers } else { own };
        let of = all.iter().filter(|authorizer| authorizer.is_of(proxy));
        let users: Vec<User> = of.flat_map(|authorizer| authorizer.users.clone()).collect();
        (!users.is_empty()).then_some(users)
    }
}

const REMEDY: &str = "write AUTHORIZER=\"-list{user:password,user2:password2}\", or with :socks or \
                      :http behind it, in quotes for the shell, and better in a file (+=FILE)";

const SHOWN_BY_PS: &str = "the passwords of AUTHORIZER= are shown to everybody on this machine by \
                           ps: better write it into a file, +=FILE";

/// Proxies that can authenticate by user and password.
const ASKING: [Proxy; 2] = [Proxy::Socks, Proxy::Http];

/// Adds the users of one `AUTHORIZER=`. As an argument it is visible to every user of the machine.
///
/// # Errors
/// As [`parse`], and too many users.
pub(crate) fn add(
    value: &str,
    is_shown: bool,
    all: &mut Vec<Authorizer>,
    notices: &mut Vec<String>,
) -> Result<(), Problem> {
    let authorizer = parse(value)?;
    let before: usize = all.iter().map(|before| before.users.len()).sum();
    if before + authorizer.users.len() > USERS_MAX {
        return Err(Problem::new(
            format!("there are more than {USERS_MAX} users"),
            "spread them over several processes",
        ));
    }
    if is_shown && !notices.iter().any(|told| told == SHOWN_BY_PS) {
        notices.push(SHOWN_BY_PS.to_owned());
    }
    all.push(authorizer);
    Ok(())
}

/// Reads the value of `AUTHORIZER=`. A password may have colons and braces, but no comma.
///
/// # Errors
/// A malformed list, a user without a password or the other way round, one that is too long for SOCKS,
/// a word that is not a proxy protocol, or a proxy protocol without authentication.
fn parse(value: &str) -> Result<Authorizer, Problem> {
    let list = value.strip_prefix("-list{").and_then(|rest| rest.rsplit_once('}'));
    let Some((users, behind)) = list else {
        return Err(Problem::new("the value is not a list of users", REMEDY));
    };
    let (protocols, is_for_all) = match behind.strip_prefix(':') {
        Some(words) => protocol_list(words)?,
        None if behind.is_empty() => (ASKING.to_vec(), true),
        None => return Err(Problem::new("there is something else behind the list", REMEDY)),
    };
    let users = users.split(',').enumerate();
    let users = users.map(|(index, user)| self::user(user).map_err(|why| wrong(index + 1, why)));
    Ok(Authorizer { protocols, is_for_all, users: users.collect::<Result<_, _>>()? })
}

fn user(text: &str) -> Result<User, &'static str> {
    let (name, password) = text.split_once(':').ok_or("has no colon before the password")?;
    if name.is_empty() || password.is_empty() {
        return Err("has an empty name or password");
    }
    if name.len().max(password.len()) > SOCKS_TEXT_BYTES {
        return Err("has a name or password of more than 255 bytes");
    }
    if text.contains(char::is_control) {
        return Err("has a control character");
    }
    Ok(User { name: name.to_owned(), password: password.to_owned() })
}

fn wrong(number: usize, why: &str) -> Problem {
    Problem::new(format!("user {number} of the list {why}"), REMEDY)
}

/// Also returns whether all proxies are meant.
fn protocol_list(text: &str) -> Result<(Vec<Proxy>, bool), Problem> {
    let (mut list, mut is_for_all) = (Vec::new(), false);
    for word in text.split(',').map(|word| word.trim().to_ascii_lowercase()) {
        match (&word[..], Proxy::of_word(&word)) {
            ("*", _) => {
                list.extend(ASKING);
                is_for_all = true;
            }
            (_, Some(proxy)) if can_ask(proxy) => list.push(proxy),
            (_, Some(_)) => {
                return Err(Problem::new(
                    format!("the {word} proxy cannot authenticate users"),
                    "leave it out, and limit its clients by RELIABLE= or by the exit's own list of hosts",
                ));
            }
            _ => {
                return Err(Problem::new(
                    "there is another word than socks, http and * behind the list",
                    REMEDY,
                ));
            }
        }
    }
    Ok((list, is_for_all))
}

/// SOCKS 4 has a user name, but no password.
fn can_ask(proxy: Proxy) -> bool {
    proxy == Proxy::Socks5 || ASKING.contains(&proxy)
}

/// Finds an `AUTHORIZER=` without the effect that it seems to have: where it names no proxies, it
/// applies to every exit, and must apply to at least one.
///
/// # Errors
/// Its index, and the reason.
pub(crate) fn check(authorizers: &[Authorizer], exits: &[Exit]) -> Result<(), (usize, Problem)> {
    let proxy_of = |exit: &Exit| match exit.way {
        ExitKind::Proxy(proxy) => Some(proxy),
        _ => None,
    };
    let cannot_ask = |exit: &&Exit| !proxy_of(exit).is_some_and(can_ask);
    for (place, authorizer) in authorizers.iter().enumerate() {
        let is_of = |exit: &Exit| proxy_of(exit).is_some_and(|proxy| authorizer.is_of(proxy));
        if !exits.iter().any(is_of) {
            let what = "it has no effect: it applies to no proxy of this process";
            let remedy = "leave it out, and limit clients by RELIABLE=hosts";
            return Err((place, Problem::new(what, remedy)));
        }
        if let Some(exit) = exits.iter().find(cannot_ask).filter(|_| authorizer.is_for_all) {
            let what =
                format!("{} authenticates no user, and admits all clients", plain(&exit.source));
            let remedy = "name the proxies that it is for behind the list, as in \
                          -list{...}:socks,http, or run the other exit in a process of its own";
            return Err((place, Problem::new(what, remedy)));
        }
    }
    Ok(())
}

/// Notices about users that no exit authenticates, and exits that do not authenticate.
pub(crate) fn notices(authorizers: &[Authorizer], exits: &[Exit]) -> Vec<String> {
    let proxy_of = |exit: &Exit| match exit.way {
        ExitKind::Proxy(proxy) => Some(proxy),
        _ => None,
    };
    let mut notices = Vec::new();
    let asks = |exit: &Exit| exit.options.authorizers.is_empty().then(|| proxy_of(exit)).flatten();
    let is_asked = |list: &Authorizer| exits.iter().filter_map(asks).any(|proxy| list.is_of(proxy));
    if !authorizers.iter().all(is_asked) {
        let why = "each proxy that it is for has one of its own";
        notices.push(format!("AUTHORIZER= has no effect: {why}"));
    }
    for exit in exits {
        let own = &exit.options.authorizers;
        let all = if own.is_empty() { authorizers } else { own };
        let has_users = |proxy| all.iter().any(|list| list.is_of(proxy));
        let source = plain(&exit.source);
        match proxy_of(exit) {
            Some(proxy) if !can_ask(proxy) && !all.is_empty() => {
                notices.push(format!("{source} asks for no user: AUTHORIZER= is not for it"));
            }
            Some(Proxy::Socks) if has_users(Proxy::Socks5) && !has_users(Proxy::Socks4) => {
                notices.push(format!(
                    "{source} lets in SOCKS 4, which asks for no user: AUTHORIZER= is for SOCKS 5 \
                     alone; :socks behind the list refuses SOCKS 4"
                ));
            }
            _ => {}
        }
    }
    notices
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_users() {
        use Proxy::{Http, Socks, Socks5};
        for (value, protocols, users) in [
            ("-list{a:b}", &[Socks, Http][..], &[("a", "b")][..]),
            ("-list{a:b,c:d:e}:socks", &[Socks], &[("a", "b"), ("c", "d:e")]),
            ("-list{a:}}:HTTP", &[Http], &[("a", "}")]),
            ("-list{a:{b}:c}: http , socks5", &[Http, Socks5], &[("a", "{b}:c")]),
            ("-list{ü:ß}:*", &[Socks, Http], &[("ü", "ß")]),
        ] {
            let read = parse(value).unwrap_or_else(|problem| panic!("{value}: {problem}"));
            assert_eq!(read.protocols, protocols, "{value}");
            let read: Vec<_> =
                read.users.iter().map(|user| (&user.name[..], &user.password[..])).collect();
            assert_eq!(read, users, "{value}");
        }
    }

    #[test]
    fn several_add_up_to_the_bound() {
        let (mut all, mut notices) = (Vec::new(), Vec::new());
        let half = format!("-list{{{}}}", ["a:b"; USERS_MAX / 2].join(","));
        for _ in 0..2 {
            add(&half, true, &mut all, &mut notices).expect("room");
        }
        assert_eq!((all.len(), &notices[..]), (2, &[SHOWN_BY_PS.to_owned()][..]));
        let message = add("-list{a:b}", true, &mut all, &mut notices).unwrap_err().to_string();
        assert!(message.contains("more than 1024 users"), "{message}");
    }

    #[test]
    fn faults_are_named_and_passwords_are_not() {
        let long = format!("-list{{{}:hunter2}}", "a".repeat(256));
        for (value, wanted) in [
            ("", "not a list of users"),
            ("hunter2", "not a list of users"),
            ("-list", "not a list of users"),
            ("-lista:hunter2", "not a list of users"),
            ("-list{a:hunter2", "not a list of users"),
            ("-pam", "not a list of users"),
            ("-list{}", "user 1 of the list has no colon"),
            ("-list{a:hunter2,hunter2}", "user 2 of the list has no colon"),
            ("-list{a:hunter2,:hunter2}", "user 2 of the list has an empty name"),
            ("-list{a:}", "user 1 of the list has an empty name or password"),
            ("-list{a:hunter2\x07}", "control character"),
            (&long, "more than 255 bytes"),
            ("-list{a:hunter2}socks", "something else behind the list"),
            ("-list{a:b},c:hunter2", "something else behind the list"),
            ("-list{a:b}:hunter2", "another word than socks, http and *"),
            ("-list{a:b}:", "another word than socks, http and *"),
            ("-list{a:hunter2}:socks,telnet", "the telnet proxy cannot authenticate users"),
            ("-list{a:hunter2}:ftp", "the ftp proxy cannot authenticate users"),
            ("-list{a:hunter2}:socks4", "the socks4 proxy cannot authenticate users"),
        ] {
            let message = parse(value).unwrap_err().to_string();
            assert!(message.contains(wanted), "{value}: {message}");
            assert!(!message.contains("hunter2"), "{message}");
        }
    }
}
