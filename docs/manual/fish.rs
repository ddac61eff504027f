//! The completion of fish.

use sockmux_uring::cli::vocabulary;

use crate::words::{self, OptionWords};

const HEAD: &str =
    "# fish completion for sockmux-uring. Made from its command line; do not edit.\n\n";

const TAIL: &str =
    "complete -c sockmux-uring -f -k -a '(__sockmux_uring_words (commandline -ct))'\n";

/// The script.
pub(crate) fn script() -> String {
    let options: String = words::options().iter().map(option).collect();
    format!("{HEAD}{}\n{options}{}{TAIL}", values(), commands())
}

/// The function for parameters.
fn values() -> String {
    let parameters = vocabulary::parameters();
    let each: String = parameters
        .iter()
        .map(|parameter| {
            let head = match parameter.is_list {
                true => "(string replace -r '[^=,]*$' '' -- $argv[1])".to_owned(),
                false => format!("'{}='", parameter.name),
            };
            let values: Vec<_> = parameter.values.iter().map(|value| quote(value)).collect();
            format!(
                "        case '{}=*'\n            set head {head}\n            set items {}\n",
                parameter.name,
                values.join(" ")
            )
        })
        .collect();
    let names: String = parameters
        .iter()
        .map(|parameter| {
            format!("            printf '{}=\\t{}\\n'\n", parameter.name, parameter.about)
        })
        .collect();
    format!(
        "function __sockmux_uring_words\n    set -l head\n    set -l items\n    \
         switch $argv[1]\n{each}        case '+=*'\n            set head '+='\n            \
         set items (__fish_complete_path (string sub -s 3 -- $argv[1]))\n        \
         case '*'\n{names}    end\n    for item in $items\n        \
         printf '%s\\n' $head$item\n    end\nend\n"
    )
}

/// Commands, and behind each its options.
fn commands() -> String {
    let each = vocabulary::commands().into_iter().map(|(command, options)| {
        let first = format!("complete -c sockmux-uring -n __fish_is_first_token -f -a {command}\n");
        let own = options.iter().map(|option| {
            let name = option.trim_start_matches('-');
            format!(
                "complete -c sockmux-uring -n '__fish_seen_subcommand_from {command}' -l {name}\n"
            )
        });
        first + &own.collect::<String>()
    });
    each.collect()
}

fn option(option: &OptionWords) -> String {
    let mut line = "complete -c sockmux-uring".to_owned();
    for name in &option.names {
        line += &match name.strip_prefix("--") {
            Some(long) => format!(" -l {long}"),
            None => format!(" -s {}", name.trim_start_matches('-')),
        };
    }
    line += match (option.takes_value, option.values.is_empty()) {
        (false, _) => "",
        (true, true) => " -r -F",
        (true, false) => " -x -a ",
    };
    if !option.values.is_empty() {
        line += &quote(&option.values.join(" "));
    }
    format!("{line} -d {}\n", quote(&option.about))
}

fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', "\\'"))
}
