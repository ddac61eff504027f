//! Whole numbers, as they are written on command lines and in files.

use std::str::FromStr;

/// A whole number in digits alone: [`str::parse`] would take a sign, too.
pub(super) fn whole<T: FromStr>(text: &str) -> Option<T> {
    let is_digits = text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| is_digits)
}

#[cfg(test)]
mod tests {
    use super::whole;

    #[test]
    fn digits_are_a_number_and_nothing_else_is() {
        assert_eq!(
            ["0", "7", "007", "255"].map(whole::<u8>),
            [Some(0), Some(7), Some(7), Some(255)]
        );
        for text in ["", "+7", "-7", " 7", "7 ", "256", "7k", "0x7"] {
            assert_eq!(whole::<u8>(text), None, "{text:?}");
        }
    }
}
