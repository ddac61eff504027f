//! Narrowing conversions of lengths, counts and times whose bound is certain by construction: a part of
//! a buffer, an index into a table, the payload of a frame.
//!
//! A value out of range is a fault. Debug builds panic, others take the largest value instead.

use std::time::Duration;

macro_rules! narrow {
    ($($name:ident: $to:ty),+) => {
        $(
            #[doc = concat!("The value as `", stringify!($to), "`.")]
            #[inline]
            pub(crate) fn $name(value: impl TryInto<$to>) -> $to {
                let narrow = value.try_into();
                debug_assert!(narrow.is_ok(), concat!("too large for ", stringify!($to)));
                narrow.unwrap_or(<$to>::MAX)
            }
        )+
    };
}

narrow!(to_u8: u8, to_u16: u16, to_u32: u32, to_usize: usize);

/// A time in microseconds. 64 bits are enough for half a million years.
#[inline]
pub(crate) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// The upper and the lower half of a value that carries two numbers.
#[inline]
pub(crate) fn halves(value: u64) -> (u32, u32) {
    ((value >> 32) as u32, (value & 0xffff_ffff) as u32)
}
