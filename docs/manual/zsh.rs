//! The completion of zsh.

use sockmux_uring::cli::vocabulary;

use crate::words::{self, OptionWords};

const HEAD: &str = r#"#compdef sockmux-uring
# zsh completion for sockmux-uring. Made from its command line; do not edit.

"#;

const TAIL: &str = r#"
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _sockmux-uring "$@"
else
    compdef _sockmux-uring sockmux-uring
fi
"#;

/// The script.
pub(crate) fn script() -> String {
    format!("{HEAD}{}\n{}{TAIL}", values(), arguments())
}

/// The function for parameters and commands.
fn values() -> String {
    let parameters = vocabulary::parameters();
    let each: String = parameters
        .iter()
        .map(|parameter| {
            let (name, values) = (parameter.name, quoted(&parameter.values));
            let head = match parameter.is_list {
                true => "*[=,]".to_owned(),
                false => format!("{name}="),
            };
            format!("    {name}=*) compset -P '{head}'; items=({values}) ;;\n")
        })
        .collect();
    let names: String = parameters
        .iter()
        .map(|parameter| {
            format!("        {}\n", quote(&format!("{}=:{}", parameter.name, parameter.about)))
        })
        .collect();
    let commands: Vec<_> = vocabulary::commands().iter().map(|(command, _)| *command).collect();
    let commands = commands.join(" ");
    format!(
        "_sockmux-uring-words() {{\n    local -a items names\n    case $PREFIX in\n{each}    \
         +=*) compset -P '+='; _files; return ;;\n    *)\n        \
         names=(\n{names}        )\n        _describe -t parameters parameter names -S ''\n        \
         ((CURRENT == 2)) && compadd -- {commands}\n        return\n        ;;\n    esac\n    \
         compadd -S '' -- $items || {{ compset -P '*[:@=]'; _files }}\n}}\n"
    )
}

/// The function for the whole line.
fn arguments() -> String {
    let commands: String = vocabulary::commands()
        .into_iter()
        .filter(|(_, options)| !options.is_empty())
        .map(|(command, options)| {
            let options = options.join(" ");
            format!("    {command}) compadd -- {options}; _files; return ;;\n")
        })
        .collect();
    let options: String = words::options()
        .iter()
        .flat_map(option)
        .map(|spec| format!("        {spec} \\\n"))
        .collect();
    format!(
        "_sockmux-uring() {{\n    ((CURRENT > 2)) && case $words[2] in\n{commands}    esac\n    \
         _arguments -s \\\n{options}        '*:word:_sockmux-uring-words'\n}}\n"
    )
}

/// A specification for each name of an option.
fn option(option: &OptionWords) -> Vec<String> {
    let about: String = option.about.chars().filter(|c| !"[]:'".contains(*c)).collect();
    let value = match (option.takes_value, option.values.is_empty()) {
        (false, _) => String::new(),
        (true, true) => ":value:_files".to_owned(),
        (true, false) => format!(":value:({})", option.values.join(" ")),
    };
    let many = if option.repeats { "*" } else { "" };
    let specification = |name: &String| {
        // The value of a letter may follow it at once, that of a name behind `=` or a blank.
        let ending = match (option.takes_value, name.starts_with("--")) {
            (false, _) => "",
            (true, true) => "=",
            (true, false) => "+",
        };
        format!("'{many}{name}{ending}[{about}]{value}'")
    };
    option.names.iter().map(specification).collect()
}

fn quoted(words: &[String]) -> String {
    words.iter().map(|word| quote(word)).collect::<Vec<_>>().join(" ")
}

fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}
