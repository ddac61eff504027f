//! Words between parentheses, separated by blanks and quoted as for a shell: the option list behind
//! `,-in`.

use super::error::Problem;

/// The words of `(word word...)` at the beginning of a text, and the text behind it. `'..'` and `".."`
/// keep blanks and parentheses in a word, as in a shell, at any position in it; all other characters
/// stand for themselves, quoted or not. Unquoted parentheses in a word have to be balanced.
///
/// # Errors
/// A quote or a parenthesis that is not closed.
pub(crate) fn parenthesised(text: &str) -> Result<(Vec<String>, &str), Problem> {
    let mut words = Vec::new();
    // Between quotes a word may be empty.
    let mut word: Option<String> = None;
    let (mut quote, mut depth) = (None, 0_usize);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '(') => {
                if depth > 0 {
                    word.get_or_insert_default().push(c);
                }
                depth += 1;
            }
            (None, ')') if depth <= 1 => {
                words.extend(word);
                return Ok((words, &text[at + 1..]));
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, c) => {
                if c == ')' {
                    depth -= 1;
                }
                word.get_or_insert_default().push(c);
            }
        }
    }
    Err(match quote {
        Some(quote) => Problem::new(
            format!("the quote {quote} in the option list is not closed"),
            "close it, or leave both out where no blank is to be kept",
        ),
        None => Problem::new(
            "the parenthesis behind ,-in is not closed",
            "write ,-in(option list), the whole between double quotes for the shell",
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_as_by_a_shell() {
        for (text, words, rest) in [
            ("()", &[][..], ""),
            ("( )x", &[], "x"),
            ("(+=config.cnf)", &["+=config.cnf"], ""),
            ("(a b\t c ):-:-P80", &["a", "b", "c"], ":-:-P80"),
            ("('+=a b' +=\"c d\"'e')(", &["+=a b", "+=c de"], "("),
            ("('' \"\")", &["", ""], ""),
            ("('a)' b\")\")", &["a)", "b)"], ""),
            ("('\"' \"'\")", &["\"", "'"], ""),
            ("(a(b c) d)e)", &["a(b", "c)", "d"], "e)"),
            ("(a\\ b)", &["a\\", "b"], ""),
            ("(ä\u{a0}ö)ü", &["ä", "ö"], "ü"),
        ] {
            let split = parenthesised(text).unwrap_or_else(|problem| panic!("{text}: {problem}"));
            assert_eq!(
                (split.0.as_slice(), split.1),
                (&words.iter().map(ToString::to_string).collect::<Vec<_>>()[..], rest),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_not_closed_is_named() {
        for (text, wanted) in [
            ("(", "the parenthesis behind ,-in is not closed; write ,-in(option list)"),
            ("(a(b)", "the parenthesis behind ,-in is not closed"),
            ("(a 'b)", "the quote ' in the option list is not closed; close it"),
            ("(a \"b')", "the quote \" in the option list is not closed"),
        ] {
            let message = parenthesised(text).unwrap_err().to_string();
            assert!(message.starts_with(wanted), "{text}: {message}");
        }
    }
}
