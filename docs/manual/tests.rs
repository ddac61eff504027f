//! Every word of the command line is in the man page, the completions and the reference.

use std::fs;
use std::process::Command;

use sockmux_uring::cli::vocabulary::{self, Parameter};

use crate::words::{self, OptionWords};
use crate::{bash, fish, man, zsh};

/// The page as it reads: without roff's escapes and fonts.
fn page() -> String {
    let page = man::page().unwrap();
    let lines = page.lines().map(|line| {
        let line = line.replace("\\fB", "").replace("\\fI", "").replace("\\fR", "");
        let line = line.replace("\\-", "-").replace("\\&", "").replace("\\*(Aq", "'");
        line.replace("\\e", "\\").replace("\\\\", "\\") + "\n"
    });
    lines.collect()
}

fn reference() -> String {
    fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reference.md")).unwrap()
}

/// Whether `word` stands in `text` by itself.
fn has(text: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '-' || c == '_';
    text.match_indices(word).any(|(at, _)| {
        let (before, behind) = (&text[..at], &text[at + word.len()..]);
        let begins = !word.starts_with(is_part) || !before.ends_with(is_part);
        begins && (!word.ends_with(is_part) || !behind.starts_with(is_part))
    })
}

/// The paragraphs that begin with `NAME=`: up to the next line that is not indented.
fn paragraphs(page: &str, name: &str) -> String {
    let (mut found, mut inside) = (String::new(), false);
    for line in page.lines() {
        if !line.starts_with(' ') {
            inside = line.contains(&format!("{name}="));
        }
        if inside {
            found.push_str(line);
            found.push('\n');
        }
    }
    found
}

/// The words of a value without what follows them: `protocol`, `0.3`; `comm`.
fn value_words(value: &str) -> impl Iterator<Item = &str> {
    value.split([':', ',', '@', '/', '{']).filter(|word| !word.is_empty())
}

/// Whether it is a protocol of the table of standard ports.
fn is_protocol(value: &str) -> bool {
    let is = |(word, _): &(&str, u16)| value.strip_suffix("://") == Some(word);
    vocabulary::protocols().iter().any(is)
}

fn parameter_values() -> impl Iterator<Item = (Parameter, String)> {
    let all = vocabulary::parameters().into_iter();
    all.flat_map(|parameter| {
        parameter.values.clone().into_iter().map(move |v| (parameter.clone(), v))
    })
}

#[test]
fn every_word_is_in_the_man_page() {
    let page = page();
    let mut missing = Vec::new();
    for OptionWords { names, values, .. } in words::options() {
        missing.extend(names.into_iter().chain(values).filter(|word| !has(&page, word)));
    }
    for (command, options) in vocabulary::commands() {
        let call = format!("sockmux-uring {command}");
        let options = options.into_iter().map(str::to_owned);
        missing.extend([call].into_iter().chain(options).filter(|word| !has(&page, word)));
    }
    for (parameter, value) in parameter_values().filter(|(_, value)| !is_protocol(value)) {
        let text = paragraphs(&page, parameter.name);
        let absent = value_words(&value).filter(|word| !has(&text, word));
        missing.extend(absent.map(|word| format!("{}={word}", parameter.name)));
    }
    for Parameter { name, options, ignored, .. } in vocabulary::parameters() {
        let options = options.into_iter().map(|option| format!("{option}="));
        let ignored = ignored.iter().map(|item| format!("{name}={item}"));
        missing.extend(options.chain(ignored).filter(|word| !has(&page, word)));
    }
    let peers = vocabulary::peer_options().iter().map(|option| format!("{option}="));
    let ports = vocabulary::protocols().iter().map(|(word, port)| format!("{word} {port}"));
    missing.extend(peers.chain(ports).filter(|word| !has(&page, word)));
    assert!(missing.is_empty(), "not in the man page, which has the text of --help: {missing:#?}");
}

#[test]
fn every_word_is_in_the_reference() {
    let reference = reference();
    let mut wanted = Vec::new();
    for OptionWords { names, values, .. } in words::options() {
        let name = names.last().cloned().unwrap_or_default();
        wanted.extend(values.iter().map(|value| format!("{name} {value}")));
        wanted.extend(names);
    }
    for (command, options) in vocabulary::commands() {
        wanted.push(format!("sockmux-uring {command}"));
        wanted.extend(options.into_iter().map(str::to_owned));
    }
    let values = parameter_values().filter(|(_, value)| !is_protocol(value));
    wanted.extend(values.map(|(parameter, value)| format!("{}={value}", parameter.name)));
    for Parameter { name, options, ignored, .. } in vocabulary::parameters() {
        wanted.extend(options.into_iter().map(|option| format!("{option}=")));
        wanted.extend(ignored.iter().map(|item| format!("{name}={item}")));
    }
    wanted.extend(vocabulary::peer_options().iter().map(|option| format!("{option}=")));
    wanted.extend(vocabulary::protocols().iter().map(|(word, port)| format!("{word} {port}")));
    // Marked as what is typed.
    let marked =
        |word: &String| reference.split('`').skip(1).step_by(2).any(|text| has(text, word));
    let missing: Vec<_> = wanted.into_iter().filter(|word| !marked(word)).collect();
    assert!(missing.is_empty(), "not between ticks in docs/reference.md: {missing:#?}");
}

/// What a shell prints; `None` if there is no such shell here. In CI there is.
fn run(shell: &str, script: &str, line: &str) -> Option<String> {
    let mut command = Command::new(shell);
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), script).unwrap();
    command.args(["-c", line]).env("SCRIPT", file.path());
    let output = match command.output() {
        Ok(output) => output,
        Err(error) if std::env::var_os("CI").is_some() => panic!("{shell}: {error}"),
        Err(_) => {
            eprintln!("NOT CHECKED: {shell} is not installed");
            return None;
        }
    };
    let (stdout, stderr) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(stderr.is_empty(), "{shell}: {stderr}\n{line}");
    Some(stdout.into_owned())
}

/// Holds what a shell offers for the beginnings of words against the words that there are. `call` makes
/// it print its offers behind each beginning, a line each; `whole` is whether they have the beginning.
fn offers_everything(shell: &str, script: &str, call: impl Fn(&str) -> String, whole: bool) {
    let beginnings: Vec<(String, Vec<String>)> = beginnings();
    let line: String = beginnings
        .iter()
        .map(|(begin, _)| format!("echo 'FOR {begin}'\n{}\n", call(begin)))
        .collect();
    let Some(printed) = run(shell, script, &line) else { return };
    let mut missing = Vec::new();
    for ((begin, wanted), offers) in beginnings.iter().zip(printed.split("FOR ").skip(1)) {
        let offers: Vec<_> =
            offers.lines().skip(1).map(|l| l.split('\t').next().unwrap()).collect();
        for word in wanted {
            let word = if whole { format!("{begin}{word}") } else { word.clone() };
            if !offers.contains(&&*word) {
                missing.push(word);
            }
        }
    }
    assert!(missing.is_empty(), "{shell} does not offer {missing:#?}: {printed}");
}

/// Beginnings of words, each with everything that may follow.
fn beginnings() -> Vec<(String, Vec<String>)> {
    let parameters = vocabulary::parameters();
    let names = parameters.iter().map(|parameter| format!("{}=", parameter.name));
    let commands = vocabulary::commands().into_iter().map(|(command, _)| command.to_owned());
    let mut all = vec![(String::new(), names.chain(commands).collect())];
    for Parameter { name, values, is_list, .. } in parameters {
        if is_list {
            all.push((format!("{name}={},", values[0]), values.clone()));
        }
        all.push((format!("{name}="), values));
    }
    all
}

#[test]
fn bash_offers_every_word() {
    let call = |begin: &str| {
        format!(
            "source \"$SCRIPT\"; compopt() {{ :; }}
             COMP_WORDBREAKS=' ' COMP_LINE='sockmux-uring {begin}' COMP_POINT=${{#COMP_LINE}}
             COMP_POINT=${{#COMP_LINE}} COMP_WORDS=(sockmux-uring '{begin}') COMP_CWORD=1
             _sockmux_uring; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        )
    };
    offers_everything("bash", &bash::script(), call, true);
}

#[test]
fn bash_is_given_the_piece_that_it_replaces() {
    let line = "source \"$SCRIPT\"; compopt() { :; }
        COMP_LINE='sockmux-uring TIMEOUT=con:5,keep' COMP_POINT=32 COMP_CWORD=5
        COMP_WORDS=(sockmux-uring TIMEOUT = con : 5,keep)
        _sockmux_uring; printf '%s\\n' \"${COMPREPLY[@]}\"";
    let Some(printed) = run("bash", &bash::script(), line) else { return };
    assert_eq!(printed, "5,keepalive:\n");
}

#[test]
fn fish_offers_every_word() {
    let call = |begin: &str| format!("source $SCRIPT; complete -C 'sockmux-uring {begin}'");
    offers_everything("fish", &fish::script(), call, true);
}

#[test]
fn zsh_offers_every_word() {
    let stubs = "compdef() { : }; compset() { : }; _files() { : }
        _describe() { print -l -- ${(P)4%%:*} }
        compadd() { while [[ $1 != -- ]]; do shift; done; shift; print -l -- \"$@\" }
        source $SCRIPT\n";
    let call = |begin: &str| format!("{stubs}CURRENT=2 PREFIX='{begin}'; _sockmux-uring-words");
    offers_everything("zsh", &zsh::script(), call, false);
}

#[test]
fn every_option_is_offered() {
    let (bash, zsh, fish) = (bash::script(), zsh::script(), fish::script());
    for OptionWords { names, values, .. } in words::options() {
        for name in &names {
            assert!(has(&bash, name), "bash: {name}");
            assert!(
                zsh.contains(&format!("'{name}")) || zsh.contains(&format!("'*{name}")),
                "zsh: {name}"
            );
            let letter = name.trim_start_matches('-');
            let kind = if name.starts_with("--") { "-l" } else { "-s" };
            assert!(has(&fish, &format!("{kind} {letter}")), "fish: {name}");
        }
        let values = values.join(" ");
        for (shell, script) in [("bash", &bash), ("zsh", &zsh), ("fish", &fish)] {
            assert!(script.contains(&values), "{shell}: {names:?}: {values}");
        }
    }
    for (command, options) in vocabulary::commands() {
        for option in options {
            let name = option.trim_start_matches('-');
            assert!(
                has(&bash, option) && has(&zsh, option) && has(&fish, name),
                "{command} {option}"
            );
        }
    }
}
