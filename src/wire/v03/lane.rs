//! What two of ours say of lanes in a 0.3 hello, behind the offer: how the lane that begins can be taken up
//! again when its connection breaks, and which lane is to be taken up by this connection.
//!
//! Each end issues a number and a secret for the lane. Who wants to take it up shows what the other end
//! has issued, so both ends prove that they are those that the lane was between.

use bytes::{Buf, BufMut};

/// First bytes of what is said of lanes.
const MAGIC: [u8; 4] = *b"LANE";
/// Bytes of a lane's secret.
pub const SECRET_BYTES: usize = 16;
const NAME_BYTES: usize = 8 + SECRET_BYTES;
/// Bytes with the magic, of a hello that takes up no lane, and of one that does.
const NEW_BYTES: usize = MAGIC.len() + NAME_BYTES;
const AGAIN_BYTES: usize = NEW_BYTES + NAME_BYTES + 8;

/// What one end has issued for a lane.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct LaneName {
    /// Unique at the end that has issued it.
    pub number: u64,
    /// Known to both ends alone.
    pub secret: [u8; SECRET_BYTES],
}

impl LaneName {
    /// Whether the other one is the same. The time that this takes tells nothing of the secret.
    pub fn is(&self, other: &LaneName) -> bool {
        let differences =
            self.secret.iter().zip(&other.secret).fold(0, |all, (one, other)| all | (one ^ other));
        self.number == other.number && differences == 0
    }
}

/// Without the secret, which is not for logs.
impl std::fmt::Debug for LaneName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LaneName({:#x})", self.number)
    }
}

/// Takes up a lane whose connection broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TakeUp {
    /// The lane, by what the receiver of this has issued.
    pub lane: LaneName,
    /// How far the sender of this has read the lane, in bytes of frames.
    pub position: u64,
}

/// What a hello says of lanes. One that says it offers that the lane can be taken up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaneHello {
    /// Issued for the lane that begins with this hello.
    pub own: LaneName,
    /// The lane that is to go on instead.
    pub again: Option<TakeUp>,
}

fn put_name(out: &mut Vec<u8>, name: &LaneName) {
    out.put_u64(name.number);
    out.put_slice(&name.secret);
}

fn get_name(bytes: &mut &[u8]) -> LaneName {
    let number = bytes.get_u64();
    let mut secret = [0; SECRET_BYTES];
    bytes.copy_to_slice(&mut secret);
    LaneName { number, secret }
}

impl LaneHello {
    /// Encodes it as sent behind the offer, big-endian:
    /// `"LANE" | number u64 | secret`, then perhaps `number u64 | secret | position u64`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_slice(&MAGIC);
        put_name(out, &self.own);
        if let Some(again) = &self.again {
            put_name(out, &again.lane);
            out.put_u64(again.position);
        }
    }

    /// Decodes what stands behind the offer; `None` if that is nothing of lanes. Of a longer one the first
    /// bytes are read.
    pub fn decode(bytes: &[u8]) -> Option<LaneHello> {
        let mut fields = bytes.strip_prefix(&MAGIC).filter(|_| bytes.len() >= NEW_BYTES)?;
        let own = get_name(&mut fields);
        let again = (bytes.len() >= AGAIN_BYTES).then(|| {
            let lane = get_name(&mut fields);
            TakeUp { lane, position: fields.get_u64() }
        });
        Some(LaneHello { own, again })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(number: u64) -> LaneName {
        let [.., low] = number.to_be_bytes();
        LaneName { number, secret: [low; SECRET_BYTES] }
    }

    #[test]
    fn what_is_said_of_lanes_survives_the_wire() {
        for again in [None, Some(TakeUp { lane: name(7), position: 1 << 40 })] {
            let hello = LaneHello { own: name(u64::MAX), again };
            let mut bytes = Vec::new();
            hello.encode(&mut bytes);
            assert_eq!(LaneHello::decode(&bytes), Some(hello));
            assert_eq!(LaneHello::decode(&bytes[..NEW_BYTES - 1]), None);
            bytes.extend_from_slice(b"fut");
            assert_eq!(LaneHello::decode(&bytes), Some(hello));
        }
        assert_eq!(LaneHello::decode(&[b'x'; AGAIN_BYTES]), None);
        assert_eq!(LaneHello::decode(b""), None);
    }

    #[test]
    fn a_name_is_the_same_in_number_and_secret() {
        assert!(name(3).is(&name(3)));
        assert!(!name(3).is(&name(4)));
        let mut other = name(3);
        other.secret[SECRET_BYTES - 1] ^= 0x80;
        assert!(!name(3).is(&other));
        assert!(!format!("{other:?}").contains("131"), "no secret is printed");
    }
}
