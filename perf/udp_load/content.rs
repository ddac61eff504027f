//! What a datagram of a number holds, and how large it is.

/// Largest datagram of IPv4.
pub(crate) const SIZE_MAX: usize = 65_507;

/// Bytes of a datagram's number, at its beginning. Smaller datagrams carry the low bytes that fit.
pub(crate) const NUMBER_BYTES: usize = 8;

/// Numbers whose sizes are drawn together, so that there are runs of equal sizes beside changes.
const GROUP: u64 = 8;

// Odd, so that different numbers, and different places in a datagram, give different words.
const BY_NUMBER: u64 = 0x9e37_79b9_7f4a_7c15;
const BY_PLACE: u64 = 0xd6e8_feb8_6659_fd93;

/// How large datagrams are.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Sizes {
    /// All of them.
    Fixed(usize),
    /// By number: mostly of the sizes that networks have, some random, few large ones.
    Mixed,
}

impl Sizes {
    /// Bytes of the datagram of this number.
    pub(crate) fn of(self, number: u64) -> usize {
        if let Sizes::Fixed(size) = self {
            return size;
        }
        let group = spread(number / GROUP);
        // Half of the groups are of one size.
        let drawn = if group & 1 == 0 { group } else { spread(!number) };
        let any = (drawn >> 32) as usize;
        match drawn >> 8 & 0xff {
            0..=23 => 0,
            24..=47 => 1,
            48..=111 => 64,
            112..=175 => 1200,
            176..=223 => 1472,
            224..=231 => 9000,
            232..=233 => SIZE_MAX,
            234..=235 => any % (SIZE_MAX + 1),
            _ => any % 2000,
        }
    }
}

/// Splitmix64's last steps: neighbouring numbers come out unlike each other.
fn spread(number: u64) -> u64 {
    let mut word = number.wrapping_add(1).wrapping_mul(BY_NUMBER);
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// The word at a place, in words from the beginning, of a datagram.
fn word(number: u64, place: usize) -> u64 {
    if place == 0 {
        return number;
    }
    number.wrapping_mul(BY_NUMBER).wrapping_add((place as u64).wrapping_mul(BY_PLACE))
}

/// Makes the whole of `datagram` that of this number.
pub(crate) fn fill(number: u64, datagram: &mut [u8]) {
    let (words, rest) = datagram.as_chunks_mut::<NUMBER_BYTES>();
    for (place, to) in words.iter_mut().enumerate() {
        *to = word(number, place).to_le_bytes();
    }
    let last = word(number, words.len()).to_le_bytes();
    rest.copy_from_slice(&last[..rest.len()]);
}

/// Whether this is what a datagram of this number begins with, or the whole of it.
pub(crate) fn fits(number: u64, datagram: &[u8]) -> bool {
    let (words, rest) = datagram.as_chunks::<NUMBER_BYTES>();
    let mut places = words.iter().enumerate();
    let last = word(number, words.len()).to_le_bytes();
    places.all(|(place, have)| *have == word(number, place).to_le_bytes())
        && *rest == last[..rest.len()]
}

/// The number that a datagram says it has; `None` for one that is too small for a whole number.
pub(crate) fn number(datagram: &[u8]) -> Option<u64> {
    datagram.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_filled_fits_its_number_only() {
        for size in [0, 1, 7, 8, 9, 64, 1472] {
            let mut datagram = vec![0; size];
            fill(77, &mut datagram);
            assert!(fits(77, &datagram), "{size}");
            assert_eq!(fits(78, &datagram), size == 0, "{size}");
        }
    }

    #[test]
    fn mixed_sizes_hold_all_that_are_asked_for() {
        for wanted in [0, 1, 64, 1200, 1472, 9000, SIZE_MAX] {
            assert!((0..10_000).any(|number| Sizes::Mixed.of(number) == wanted), "{wanted}");
        }
    }
}
