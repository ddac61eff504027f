//! Command lines in the form of other programs: each is answered with the equivalent words.

use super::address;
use super::error::{Problem, plain, quoted};
use super::words;

/// Options whose value may be a word of its own.
const WITH_VALUE: [&str; 10] =
    ["-P", "-F", "-A", "-C", "-I", "-O", "-X", "-Q", "--log", "--engine"];

/// Endings of other programs' configuration files.
const CONFIGURATIONS: [&str; 7] = [".toml", ".yaml", ".yml", ".json", ".ini", ".conf", ".cfg"];

/// The first argument that is a habit from elsewhere. `args` begins with the program's name; `names`
/// are the parameters that there are.
pub(crate) fn problem(args: &[String], names: &[&str]) -> Option<Problem> {
    each(args).find_map(|(arg, next)| of_argument(arg, next, names))
}

/// The arguments that are not values of options before them, each with the following one.
pub(crate) fn each(args: &[String]) -> impl Iterator<Item = (&str, Option<&str>)> {
    let all = args.iter().map(String::as_str);
    let before = all.clone();
    let next = all.clone().skip(2).map(Some).chain([None]);
    let with_next = all.skip(1).zip(next).zip(before);
    with_next
        .take_while(|((arg, _), _)| *arg != "--")
        .filter(|(_, before)| !WITH_VALUE.contains(before))
        .map(|(arg_and_next, _)| arg_and_next)
}

fn of_argument(arg: &str, next: Option<&str>, names: &[&str]) -> Option<Problem> {
    let written_so = match arg {
        "help" | "-help" | "-?" => Some("-h, or --help for everything"),
        "version" | "-version" => Some("--version"),
        _ => None,
    };
    if let Some(line) = written_so {
        let what = format!("{} is written otherwise here", quoted(arg));
        return Some(Problem::new(what, format!("write sockmux-uring {line}")));
    }
    if let Some(problem) = one_word_for_all(arg, names) {
        return Some(problem);
    }
    for (option, forward) in
        [("-L", local as fn(&str) -> Option<String>), ("-R", remote), ("-D", dynamic)]
    {
        let Some(value) = arg.strip_prefix(option) else { continue };
        let value = if value.is_empty() { next.unwrap_or_default() } else { value };
        let line = forward(value).or_else(|| forward(example(option))).unwrap_or_default();
        return Some(Problem::new(
            format!("{option} is an option of ssh"),
            format!("write {line}, beside -P or SERVER=sockmux:// of each end"),
        ));
    }
    if let Some(file) = configuration(arg, next) {
        let remedy = format!(
            "write +={}; in it one option or parameter of this program a line, as on the command line",
            plain(file)
        );
        return Some(Problem::new(
            format!("{} asks for a configuration file", quoted(arg)),
            remedy,
        ));
    }
    // `DEST host:port`
    match next {
        Some(next)
            if names.contains(&arg) && !next.contains('=') && !next.starts_with(['-', '+']) =>
        {
            let (arg, next) = (plain(arg), words::shell(next));
            Some(Problem::new(
                format!("{} stands without its value", quoted(&arg)),
                format!("write {arg}={next}, without a blank"),
            ))
        }
        _ => None,
    }
}

/// A forward of ssh that this option could have.
fn example(option: &str) -> &'static str {
    match option {
        "-D" => "1080",
        _ => "8080:host:80",
    }
}

/// `[bind:]port:host:hostport` as the words of the end where clients come in, and of the other one.
fn forward(value: &str) -> Option<(String, String)> {
    let (place, server) = split_forward(value)?;
    Some((format!("PORT={place}"), format!("DEST={server}")))
}

fn split_forward(value: &str) -> Option<(&str, &str)> {
    let (rest, port) = value.rsplit_once(':')?;
    let host_at = if rest.ends_with(']') { rest.rfind('[')? } else { rest.rfind(':')? + 1 };
    let place = rest[..host_at].strip_suffix(':')?;
    address::port(port).ok()?;
    address::port(place.rsplit(':').next()?).ok()?;
    let clean = |text: &str| !text.is_empty() && plain(text) == text && !text.contains(' ');
    (clean(place) && clean(&rest[host_at..])).then_some((place, &value[host_at..]))
}

fn local(value: &str) -> Option<String> {
    let (entrance, exit) = forward(value)?;
    Some(format!("{entrance} here and {exit} at the other end"))
}

fn remote(value: &str) -> Option<String> {
    let (entrance, exit) = forward(value)?;
    Some(format!("{exit} here and {entrance} at the other end"))
}

fn dynamic(value: &str) -> Option<String> {
    let port = value.rsplit(':').next()?;
    address::port(port).ok()?;
    Some(format!("PORT={} here and SERVER=socks,-in at the other end", plain(value)))
}

/// The file of `-c FILE`, `--config=FILE` and `config.toml`.
fn configuration<'a>(arg: &'a str, next: Option<&'a str>) -> Option<&'a str> {
    const FILE: &str = "FILE";
    let of_next = next.filter(|next| !next.starts_with('-') && !next.contains('=')).unwrap_or(FILE);
    match arg {
        "-c" | "--config" | "--conf" | "-config" => Some(of_next),
        _ => {
            let value = arg.strip_prefix("--config=").or_else(|| arg.strip_prefix("-c"));
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                return Some(value);
            }
            let named = !arg.contains(['=', ' ']) && !arg.starts_with(['-', '+']);
            (named && CONFIGURATIONS.iter().any(|ending| arg.ends_with(ending))).then_some(arg)
        }
    }
}

/// All words in quotes together, which are one for the shell.
fn one_word_for_all(arg: &str, names: &[&str]) -> Option<Problem> {
    let is_word = |word: &str| {
        let name = word.split('=').next().unwrap_or_default();
        (word.contains('=') && names.contains(&name))
            || word.starts_with("+=")
            || WITH_VALUE[..8].iter().any(|option| word.starts_with(option))
    };
    // A command and an option list have blanks of their own.
    if arg.contains(['@', '(']) || arg.contains("exec:") {
        return None;
    }
    let mut pieces = arg.split_whitespace();
    (pieces.clone().count() > 1 && pieces.all(is_word)).then(|| {
        Problem::new(
            format!("{} is one word, with blanks in it", quoted(arg)),
            format!("write it without the quotes around all: sockmux-uring {}", plain(arg)),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 3] = ["DEST", "PORT", "SERVER"];

    fn message(line: &[&str]) -> Option<String> {
        let args: Vec<_> = ["sockmux-uring"].iter().chain(line).map(|&a| a.to_owned()).collect();
        problem(&args, &NAMES).map(|problem| problem.to_string())
    }

    #[test]
    fn each_habit_gets_the_line_to_type() {
        for (line, wanted) in [
            (&["-L", "8080:host:80"][..], "write PORT=8080 here and DEST=host:80 at the other end"),
            (&["-L8080:host:80"], "PORT=8080 here and DEST=host:80"),
            (&["-L", "127.0.0.1:8080:host:80"], "PORT=127.0.0.1:8080 here and DEST=host:80"),
            (&["-L", "8080:[::1]:80"], "PORT=8080 here and DEST=[::1]:80"),
            (&["-L", "[::1]:8080:h:80"], "PORT=[::1]:8080 here and DEST=h:80"),
            (&["-P9000", "-R", "8080:host:80"], "DEST=host:80 here and PORT=8080 at the other"),
            (&["-D", "1080"], "PORT=1080 here and SERVER=socks,-in at the other end"),
            (&["-D1080"], "PORT=1080 here"),
            (&["-L"], "PORT=8080 here and DEST=host:80"),
            (&["-L", "nonsense"], "PORT=8080 here and DEST=host:80"),
            (&["-c", "relay.cnf"], "write +=relay.cnf; in it one option"),
            (&["--config=x.toml"], "write +=x.toml"),
            (&["--config"], "write +=FILE"),
            (&["config.toml"], "write +=config.toml"),
            (&["DEST", "host:22"], "write DEST=host:22, without a blank"),
            (&["-P:9000 DEST=127.0.0.1:22"], "sockmux-uring -P:9000 DEST=127.0.0.1:22"),
            (&["PORT=1 DEST=h:22"], "without the quotes around all"),
            (&["help"], "sockmux-uring -h, or --help"),
            (&["version"], "sockmux-uring --version"),
        ] {
            let message = message(line).unwrap_or_default();
            assert!(message.contains(wanted), "{line:?}: {message}");
        }
    }

    #[test]
    fn what_is_right_is_no_habit() {
        for line in [
            &["-P9000", "DEST=h:1"][..],
            &["-I", "config.toml", "-O", "out.conf", "-Fsockmux"],
            &["+=relay.conf"],
            &["SERVER=exec:cat -n DEST=x,-in"],
            &["SERVER=sockmux:proc@ssh host sockmux-uring -Fsockmux -Q22"],
            &["SERVER=http,-in(PERMIT=*:*:* TIMEOUT=ask:3)"],
            &["demo"],
            &["--", "-L"],
            &[],
        ] {
            assert_eq!(message(line), None, "{line:?}");
        }
    }
}
