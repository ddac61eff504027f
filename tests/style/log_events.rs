//! docs/log-events.md has every message of the log from level info upwards, with its fields, and no other.

use std::collections::{BTreeMap, BTreeSet};

use super::Source;

/// Each message with its fields.
type Events = BTreeMap<String, BTreeSet<String>>;

/// The page, and what of src is not the program that an operator runs.
pub(super) const PAGE: &str = "docs/log-events.md";
const OTHERS: [&str; 3] = ["src/worker/sim/", "src/io/sim/", "src/demo/"];

pub(super) fn findings(sources: &[Source], page: &Source) -> Vec<String> {
    let (mut logged, mut findings) = (Events::new(), Vec::new());
    for source in sources.iter().filter(|source| !OTHERS.iter().any(|o| source.path.starts_with(o)))
    {
        for (message, fields) in events_of(source, &mut findings) {
            logged.entry(message).or_default().extend(fields);
        }
    }
    let listed = events_in(page);
    for (message, fields) in &logged {
        match listed.get(message) {
            None => findings.push(format!("{PAGE} lacks `{message}` with {fields:?}")),
            Some(others) if others != fields => {
                findings
                    .push(format!("{PAGE}: `{message}` has the fields {fields:?}, not {others:?}"));
            }
            Some(_) => {}
        }
    }
    let gone = listed.keys().filter(|message| !logged.contains_key(*message));
    findings.extend(gone.map(|message| format!("{PAGE}: nothing logs `{message}`")));
    findings
}

/// The rows of the page: level, message, fields, and what to do.
fn events_in(page: &Source) -> Events {
    let mut events = Events::new();
    for line in page.text.lines() {
        let cells: Vec<&str> = line.split(" | ").map(str::trim).collect();
        let [level, message, fields, _] = cells[..] else { continue };
        if !["info", "warn", "error"].iter().any(|name| level.contains(name)) {
            continue;
        }
        let fields = fields.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        events.insert(message.trim_matches('`').to_owned(), fields);
    }
    events
}

fn events_of(source: &Source, findings: &mut Vec<String>) -> Vec<(String, BTreeSet<String>)> {
    let text = source.text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let code = text.lines().map(|line| if line.trim_start().starts_with("//") { "" } else { line });
    let code = code.collect::<Vec<_>>().join("\n");
    let mut events = Vec::new();
    for name in ["info!(", "warn!(", "error!(", "debug!(", "trace!("] {
        for (at, _) in code.match_indices(name) {
            if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
                continue;
            }
            let line = code[..at].matches('\n').count() + 1;
            let (mut fields, mut message) = (BTreeSet::new(), None);
            for argument in arguments(&code[at + name.len()..]) {
                let key = argument.split(" = ").next().unwrap_or_default();
                let value = argument.split(" = ").nth(1).unwrap_or(key);
                if key.starts_with('?') || value.starts_with('?') {
                    findings
                        .push(source.finding(line, "a field in Debug form: JSON has it as well"));
                }
                if let Some(text) = argument.strip_prefix('"') {
                    message = Some(text.trim_end_matches('"').to_owned());
                    break;
                }
                let key = key.trim_start_matches(['%', '?']);
                fields.insert(key.rsplit('.').next().unwrap_or(key).to_owned());
            }
            if name.starts_with("debug") || name.starts_with("trace") {
                continue;
            }
            let texts = message.map(|message| texts_of(&message, &code)).unwrap_or_default();
            if texts.is_empty() {
                findings.push(source.finding(line, "a line of the log without a message"));
            }
            events.extend(texts.into_iter().map(|text| (text, fields.clone())));
        }
    }
    events
}

/// The arguments of a macro, up to its closing parenthesis.
fn arguments(text: &str) -> Vec<String> {
    let (mut depth, mut is_text, mut is_escaped) = (0, false, false);
    let (mut all, mut one) = (Vec::new(), String::new());
    for c in text.chars() {
        if is_text {
            is_text = is_escaped || c != '"';
            is_escaped = !is_escaped && c == '\\';
        } else {
            match c {
                '"' => is_text = true,
                '(' | '[' | '{' => depth += 1,
                ')' if depth == 0 => break,
                ')' | ']' | '}' => depth -= 1,
                ',' if depth == 0 => {
                    all.push(std::mem::take(&mut one));
                    continue;
                }
                _ => {}
            }
        }
        one.push(c);
    }
    all.push(one);
    all.into_iter().map(|one| one.trim().to_owned()).filter(|one| !one.is_empty()).collect()
}

/// What a message may be: as it stands, with a constant of its file in it, or one of the texts that a
/// `match` of its file gives.
fn texts_of(message: &str, code: &str) -> Vec<String> {
    let whole = message.split("\\\n").enumerate();
    let whole: String =
        whole.map(|(at, part)| if at > 0 { part.trim_start() } else { part }).collect();
    let Some((before, rest)) = whole.split_once('{') else { return vec![whole] };
    let (name, behind) = rest.split_once('}').unwrap_or_default();
    let constant = code.split(&format!("const {name}: &str = \"")).nth(1);
    if let Some(value) = constant.and_then(|text| text.split('"').next()) {
        return vec![format!("{before}{value}{behind}")];
    }
    let arms = code.split("=> ").skip(1).filter_map(|arm| {
        let arm = arm.trim_start_matches(|c: char| c == '{' || c.is_whitespace());
        arm.strip_prefix('"')?.split('"').next().map(str::to_owned)
    });
    arms.filter(|text| text.contains(' ')).collect()
}

#[test]
fn events_are_found_with_their_fields_whatever_their_form() {
    let text = "const A: &str = \"a text\";\n// info!(\"no\")\nfn f() {\n info!(one, %two, three = f(1, 2), \
                \"said\");\n warn!(x.y, \"{A} it \\\n   is\"); debug!(z, \"not this\");\n}\n";
    let page = "| level | message | fields | what |\n| --- | --- | --- | --- |\n| info | `said` | \
                `one`, `two`, `three` | it |\n| warn | `a text it is` | `y` | it |\n";
    let (source, page) = (Source::sample("src/a.rs", text), Source::sample(PAGE, page));
    assert_eq!(findings(std::slice::from_ref(&source), &page), Vec::<String>::new());
    let less = Source::sample(PAGE, &page.text.replace(", `two`", "").replace("it is", "it was"));
    assert_eq!(findings(&[source], &less).len(), 3);
    let debug = [Source::sample("src/a.rs", "debug!(a = ?b, \"c\")")];
    assert_eq!(findings(&debug, &Source::sample(PAGE, "")).len(), 1);
}
