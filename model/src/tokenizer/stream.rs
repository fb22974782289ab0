//! Decoding as tokens arrive.

use super::Tokenizer;

/// Turns ids into text one at a time, and never hands out half a character.
///
/// Most tokens are text and come out at once. Characters that the vocabulary lacks arrive as
/// single bytes; those wait until they make up a character. What cannot become one any more
/// comes out as `U+FFFD`.
#[derive(Debug)]
pub struct Decoder<'a> {
    tokenizer: &'a Tokenizer,
    special: bool,
    /// The bytes of a character that is not complete yet: at most 3.
    held: Vec<u8>,
}

impl<'a> Decoder<'a> {
    pub(super) fn new(tokenizer: &'a Tokenizer, special: bool) -> Self {
        Self { tokenizer, special, held: Vec::new() }
    }

    /// Takes the next id; gives the text that is certain now, if there is any.
    pub fn push(&mut self, id: u32) -> Option<String> {
        let special = self.tokenizer.is_special(id);
        if special && !self.special {
            return self.finish();
        }
        let piece = self.tokenizer.piece(id)?;
        match byte(&piece).filter(|_| !special) {
            Some(byte) => {
                self.held.push(byte);
                self.complete()
            }
            None => {
                let mut text = self.finish().unwrap_or_default();
                text.push_str(&piece.replace('▁', " "));
                Some(text)
            }
        }
        .filter(|text| !text.is_empty())
    }

    /// The end: what was still held back can no longer become a character.
    pub fn finish(&mut self) -> Option<String> {
        let held = std::mem::take(&mut self.held);
        (!held.is_empty()).then(|| "\u{FFFD}".repeat(held.len()))
    }

    /// The characters at the beginning of what is held.
    fn complete(&mut self) -> Option<String> {
        let mut text = String::new();
        loop {
            match std::str::from_utf8(&self.held) {
                Ok(whole) => {
                    text.push_str(whole);
                    self.held.clear();
                    break;
                }
                // More bytes may complete it.
                Err(error) if error.error_len().is_none() && error.valid_up_to() == 0 => break,
                Err(error) => {
                    let good = error.valid_up_to();
                    let bad = error.error_len().unwrap_or(0);
                    text.push_str(std::str::from_utf8(&self.held[..good]).unwrap_or_default());
                    text.push_str(&"\u{FFFD}".repeat(bad));
                    self.held.drain(..good + bad);
                }
            }
        }
        Some(text)
    }
}

/// The byte that a piece such as `<0xE2>` stands for.
fn byte(piece: &str) -> Option<u8> {
    let hex = piece.strip_prefix("<0x")?.strip_suffix('>')?;
    (hex.len() == 2).then(|| u8::from_str_radix(hex, 16).ok()).flatten()
}
