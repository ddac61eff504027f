//! Every word of the command line but the options: from the lists that the parsers themselves refuse
//! unknown words by. The man page, the completions and the tests of the reference are made from it.

use super::plan::Proxy;
use super::{
    build, carrier, encryption, exit, help, maxima, peer_options, permit, portlist, protocol,
    soxconf, timeout, unix,
};

/// A parameter, `NAME=VALUE`.
#[derive(Debug, Clone)]
pub struct Parameter {
    /// Its name.
    pub name: &'static str,
    /// What it is for, in a few words.
    pub about: &'static str,
    /// What its value may begin with. What another word or a number follows ends in `:`, `=`, `@`, `/`
    /// or `{`.
    pub values: Vec<String>,
    /// The value is a list of these, with commas between.
    pub is_list: bool,
    /// Items of the original that are accepted and have no effect.
    pub ignored: &'static [&'static str],
    /// Options behind `?`.
    pub options: Vec<&'static str>,
}

/// All parameters.
pub fn parameters() -> Vec<Parameter> {
    build::NAMES.into_iter().map(parameter).collect()
}

/// Options of a peer in the peers file, `NAME=VALUE`.
pub fn peer_options() -> &'static [&'static str] {
    &peer_options::NAMES
}

/// Protocols with their standard ports.
pub fn protocols() -> &'static [(&'static str, u16)] {
    &protocol::STANDARD_PORTS
}

/// Commands, the first word behind the program's name, each with its options: as the usage has them.
pub fn commands() -> Vec<(&'static str, Vec<&'static str>)> {
    let is_command = |word: &&str| word.chars().all(|c| c.is_ascii_lowercase());
    let lines = help::USAGE.lines().filter_map(|line| line.trim().strip_prefix("sockmux-uring "));
    let lines = lines.map(str::split_whitespace);
    lines
        .filter_map(|mut words| {
            let command = words.next().filter(is_command)?;
            let words = words.map(|word| word.trim_matches(['[', ']']));
            Some((command, words.filter(|word| word.starts_with('-')).collect()))
        })
        .collect()
}

/// The ways to call the program.
pub fn usage() -> &'static str {
    help::USAGE
}

/// The description of the parameters: sections, each with its title in a line without indentation.
pub fn description() -> &'static str {
    help::AFTER
}

fn parameter(name: &'static str) -> Parameter {
    let (about, is_list) = about(name);
    let options = match name {
        "PORT" => {
            let of_sockets = unix::OPTIONS.iter().filter(|name| !portlist::OPTIONS.contains(name));
            portlist::OPTIONS.iter().chain(of_sockets).copied().collect()
        }
        "DEST" => exit::OPTIONS.to_vec(),
        "SERVER" => [&exit::OPTIONS[..], &carrier::OPTIONS].concat(),
        _ => Vec::new(),
    };
    let ignored: &[&str] = match name {
        "MAXIMA" => &maxima::IGNORED,
        "SOXCONF" => &soxconf::IGNORED,
        "TLSCONF" => &encryption::IGNORED,
        _ => &[],
    };
    Parameter { name, about, values: values(name), is_list, ignored, options }
}

/// What a parameter is for, and whether its value is a list of items.
fn about(name: &str) -> (&'static str, bool) {
    match name {
        "SERVER" => ("the persistent connection, an exit or a relay", false),
        "PORT" => ("entrances: where streams begin at this end", false),
        "DEST" => ("an exit: where streams of the peer go", false),
        "RELIABLE" => ("who is served at all", false),
        "PERMIT" => ("what proxies may reach, and for whom", false),
        "AUTHORIZER" => ("users of proxies", false),
        "MAXIMA" => ("how many streams there may be", true),
        "TIMEOUT" => ("how long each thing may take", true),
        "SOXCONF" => ("choices of the protocol and of what moves bytes", true),
        "STLS" => ("encrypt, at the end that dials or that accepts", true),
        "TLSCONF" => ("encrypt; keys, and who the peer may be", true),
        _ => ("", false),
    }
}

fn values(name: &str) -> Vec<String> {
    let each_with = |items: &[&str]| items.iter().map(|item| format!("{item}:")).collect();
    match name {
        "SERVER" => servers(),
        "PORT" | "DEST" => vec!["unix:".into()],
        "RELIABLE" => vec![".localnet".into()],
        "PERMIT" => {
            let all = Proxy::ALL.map(Proxy::word).into_iter().chain(permit::OTHERS);
            all.map(|word| format!("{word}:")).collect()
        }
        "AUTHORIZER" => vec!["-list{".into()],
        "MAXIMA" => each_with(&maxima::ITEMS),
        "TIMEOUT" => each_with(&timeout::ITEMS),
        "SOXCONF" => soxconf::ITEMS.iter().flat_map(|item| of_soxconf(item)).collect(),
        "STLS" => encryption::SIDES.map(str::to_owned).to_vec(),
        "TLSCONF" => each_with(&encryption::ITEMS),
        _ => Vec::new(),
    }
}

/// An item with the values that have names.
fn of_soxconf(item: &str) -> Vec<String> {
    let values: &[&str] = match item {
        "crypt" => &[":no"],
        "nodelay" | "noconndata" => &[""],
        "protocol" => &[":1", ":0.3"],
        "congestion" => &[":auto", ":system"],
        "bulk" => &[":auto", ":copy", ":splice"],
        "down" => &[":hold", ":refuse", ":close"],
        _ => &[":"],
    };
    values.iter().map(|value| format!("{item}{value}")).collect()
}

fn servers() -> Vec<String> {
    let links = carrier::KINDS.iter().map(|kind| format!("sockmux:{kind}@"));
    let proxies = Proxy::ALL.map(|proxy| format!("{},-in", proxy.word()));
    let protocols = protocol::STANDARD_PORTS.iter().map(|(word, _)| format!("{word}://"));
    ["sockmux", "sockmux://", "tcprelay://", "udprelay://", "exec:"]
        .map(str::to_owned)
        .into_iter()
        .chain(links)
        .chain(proxies)
        .chain(protocols)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_parameter_has_words_for_it() {
        for parameter in parameters() {
            assert_ne!(parameter.about, "", "{}", parameter.name);
            assert!(!parameter.values.is_empty(), "{}", parameter.name);
        }
    }

    #[test]
    fn commands_are_those_of_the_usage() {
        let commands = commands();
        assert!(commands.contains(&("keygen", vec!["--secret"])), "{commands:?}");
        assert!(commands.contains(&("demo", Vec::new())), "{commands:?}");
    }
}
