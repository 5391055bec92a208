//! Frames of the peer protocol: a little-endian u32 length, then one message.
//!
//! A reader gets the length from [`frame_len`] first, which refuses a longer frame than is allowed. So it never allocates
//! more than the protocol allows.

use super::encoding::{self, CodecError};
use super::frame::Message;
use super::limits::{FRAME_MAX_BYTES, OPENED_MAX_BYTES};
use super::units::PieceCount;

/// Bytes of the length at the start of a frame.
pub const LENGTH_BYTES: usize = 4;

/// Encodes a message as a frame.
///
/// # Panics
/// When the message is longer than its kind may be. Callers do not build such messages.
#[must_use]
pub fn encode_message(message: &Message) -> Vec<u8> {
    let body = encoding::encode_value(message);
    assert!(body.len() <= max_message_bytes(message), "a message of {} bytes: {message:?}", body.len());
    let length = u32::try_from(body.len()).expect("asserted to be short");
    let mut frame = Vec::with_capacity(LENGTH_BYTES + body.len());
    frame.extend_from_slice(&length.to_le_bytes());
    frame.extend_from_slice(&body);
    frame
}

fn max_message_bytes(message: &Message) -> usize {
    if matches!(message, Message::Opened { .. }) { OPENED_MAX_BYTES } else { FRAME_MAX_BYTES }
}

/// Longest frame in bytes while a consumer waits for `Opened`. Another message may come instead, and the provider of a
/// small file cannot make the consumer allocate more than the bit field needs.
#[must_use]
pub fn opening_max_bytes(pieces: PieceCount) -> usize {
    (FRAME_MAX_BYTES + pieces.as_usize().div_ceil(8)).min(OPENED_MAX_BYTES)
}

/// Length in bytes of the message that follows `head`. `allowed` is [`FRAME_MAX_BYTES`], or [`opening_max_bytes`] for a
/// consumer that waits for `Opened`.
///
/// # Errors
/// [`CodecError::TooLong`] when it is more than `allowed`.
pub fn frame_len(head: [u8; LENGTH_BYTES], allowed: usize) -> Result<usize, CodecError> {
    let claimed = u32::from_le_bytes(head) as usize;
    if claimed > allowed { Err(CodecError::TooLong { claimed, allowed }) } else { Ok(claimed) }
}

/// Decodes the message of a frame.
///
/// # Errors
/// [`CodecError`] when the bytes are not a message, are more than its kind may have, or go on after it.
pub fn decode_message(body: &[u8]) -> Result<Message, CodecError> {
    let message: Message = encoding::decode_value(body)?;
    let allowed = max_message_bytes(&message);
    if body.len() > allowed { Err(CodecError::TooLong { claimed: body.len(), allowed }) } else { Ok(message) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::frame::{ByeCode, RefusedCode, RejectCode, WireRange};
    use super::super::limits::FILE_PIECES_MAX;
    use super::super::ticket::{Nonce, PeerKey, Signature, Ticket};
    use super::super::units::PieceIndex;
    use super::*;

    fn any_message() -> impl Strategy<Value = Message> {
        let index = any::<u32>().prop_map(PieceIndex);
        let count = any::<u32>().prop_map(PieceCount);
        let nonce = any::<[u8; 32]>().prop_map(Nonce);
        let signature = any::<u8>().prop_map(|byte| Signature([byte; 64]));
        let ticket = proptest::collection::vec(any::<u8>(), 0..300).prop_map(Ticket);
        let bits = proptest::collection::vec(any::<u8>(), 0..5_000);
        let ranges = proptest::collection::vec((any::<u32>(), any::<u32>()), 0..50)
            .prop_map(|ranges| ranges.into_iter().map(|(first, last)| WireRange { first, last }).collect());
        prop_oneof![
            (any::<u32>(), nonce.clone(), any::<[u8; 32]>()).prop_map(|(version, nonce, key)| {
                Message::Greeting { version, nonce, peer_key: PeerKey(key) }
            }),
            (ticket.clone(), nonce.clone(), signature.clone())
                .prop_map(|(ticket, nonce, signature)| Message::Open { ticket, nonce, signature }),
            (any::<u64>(), bits, signature.clone())
                .prop_map(|(length, bitfield, signature)| Message::Opened { length, bitfield, signature }),
            ".{0,80}".prop_map(|message| Message::Refused { code: RefusedCode::Expired, message }),
            (index.clone(), count.clone()).prop_map(|(first, count)| Message::Request { first, count }),
            (index.clone(), any::<u32>()).prop_map(|(index, length)| Message::Piece { index, length }),
            index.clone().prop_map(|index| Message::Reject { index, code: RejectCode::SourceChanged }),
            (index, count).prop_map(|(first, count)| Message::Cancel { first, count }),
            ranges.prop_map(|ranges| Message::Have { ranges }),
            ticket.prop_map(|ticket| Message::Renew { ticket }),
            Just(Message::Bye { code: ByeCode::Done }),
            (nonce, ".{0,48}").prop_map(|(nonce, address)| Message::Prove { nonce, address }),
            signature.prop_map(|signature| Message::Proof { signature }),
        ]
    }

    proptest! {
        #[test]
        fn every_message_decodes_to_what_was_encoded(message in any_message()) {
            let frame = encode_message(&message);
            let head = frame[..LENGTH_BYTES].try_into().unwrap();
            prop_assert_eq!(frame_len(head, OPENED_MAX_BYTES).unwrap(), frame.len() - LENGTH_BYTES);
            prop_assert_eq!(decode_message(&frame[LENGTH_BYTES..]).unwrap(), message);
        }

        #[test]
        fn a_cut_or_lengthened_message_is_refused(message in any_message(), cut in 0usize..100) {
            let frame = encode_message(&message);
            let body = &frame[LENGTH_BYTES..];
            prop_assert!(decode_message(&body[..body.len().saturating_sub(1 + cut)]).is_err());
            let mut longer = body.to_vec();
            longer.push(0);
            prop_assert_eq!(decode_message(&longer), Err(CodecError::Trailing(1)));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode_message(&bytes);
        }
    }

    #[test]
    fn a_claim_of_gigabytes_allocates_nothing() {
        // `Opened` with a bit field that claims 2^62 bytes.
        let mut body = vec![2, 0, 253];
        body.extend_from_slice(&(1u64 << 62).to_le_bytes());
        assert!(matches!(decode_message(&body), Err(CodecError::Malformed(_))));
        assert_eq!(
            frame_len(u32::MAX.to_le_bytes(), FRAME_MAX_BYTES),
            Err(CodecError::TooLong { claimed: u32::MAX as usize, allowed: FRAME_MAX_BYTES })
        );
    }

    #[test]
    fn messages_keep_their_numbers() {
        let number = |message: &Message| encode_message(message)[LENGTH_BYTES];
        assert_eq!(number(&Message::Request { first: PieceIndex(0), count: PieceCount(1) }), 4);
        assert_eq!(number(&Message::Piece { index: PieceIndex(0), length: 1 }), 5);
        assert_eq!(number(&Message::Bye { code: ByeCode::Done }), 10);
        assert_eq!(number(&Message::Proof { signature: Signature([0; 64]) }), 12);
    }

    #[test]
    fn the_bit_field_of_the_longest_file_fits() {
        let bitfield = vec![0xFF; FILE_PIECES_MAX.div_ceil(8) as usize];
        let opened = Message::Opened { length: u64::MAX, bitfield, signature: Signature([7; 64]) };
        let frame = encode_message(&opened);
        assert_eq!(decode_message(&frame[LENGTH_BYTES..]), Ok(opened));
    }
}
