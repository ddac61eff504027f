//! What has to hold of a conversation.

use super::actors::End;
use super::script::{Conversation, How};

/// What a side of a conversation has had.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Had {
    pub(super) received: u32,
    pub(super) ended: Option<End>,
}

/// What has to hold of a conversation that is over.
pub(super) fn check_one(
    conversation: &Conversation,
    client: Had,
    server: Option<Had>,
    may_break: bool,
) -> Result<(), String> {
    let [up_bytes, down_bytes] = conversation.bytes;
    let describe = || format!("client {client:?}, server {server:?}");
    // An end that comes in order comes behind the last byte.
    if client.ended == Some(End::Eof)
        && client.received != down_bytes
        && !matches!(conversation.how, How::ServerResets(_) | How::ClientResets(_))
    {
        return Err(format!("the answer is cut off, of {down_bytes}: {}", describe()));
    }
    if let Some(server) = server
        && server.ended == Some(End::Eof)
        && server.received != up_bytes
        && conversation.how == How::Exchange
    {
        return Err(format!("the request is cut off, of {up_bytes}: {}", describe()));
    }
    if may_break {
        return Ok(());
    }
    match conversation.how {
        How::Exchange => {
            let is_whole = |had: Had, bytes| had.ended == Some(End::Eof) && had.received == bytes;
            if !is_whole(client, down_bytes) || !server.is_some_and(|had| is_whole(had, up_bytes)) {
                return Err(format!("not whole, of {up_bytes} and {down_bytes}: {}", describe()));
            }
        }
        How::EarlyAnswer(_) if client.received != down_bytes => {
            return Err(format!("the early answer of {down_bytes} is not whole: {}", describe()));
        }
        _ => {}
    }
    Ok(())
}
