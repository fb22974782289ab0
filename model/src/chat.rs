//! Gemma 4's chat format: turns between control tokens.
//!
//! After the published `chat_template.jinja`, as far as text goes (no tools, no images):
//!
//! ```text
//! <bos><|turn>system\n<|think|>\nBe brief.<turn|>\n<|turn>user\nHello<turn|>\n<|turn>model\n
//! ```
//!
//! The control tokens become ids here and never pass through text, so nobody can write one.

use crate::{Result, Tokenizer};

/// Whose words a message holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// How the model is to answer; only the first message.
    System,
    /// A person.
    User,
    /// The model.
    Model,
}

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Whose.
    pub role: Role,
    /// The text; of a model's answer without its thoughts.
    pub content: String,
}

/// What a token of an answer belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// What the model says.
    Answer,
    /// What it thinks before.
    Thought,
}

/// The control tokens of a vocabulary that has turns.
#[derive(Debug, Clone, Copy)]
pub struct Chat {
    bos: u32,
    turn: u32,
    end: u32,
    think: u32,
    channel: u32,
    channel_end: u32,
}

impl Chat {
    /// `None` where the vocabulary has no turns: such a model continues a text.
    pub fn of(tokenizer: &Tokenizer) -> Option<Self> {
        let id = |token| tokenizer.token_id(token).ok();
        Some(Self {
            bos: id("<bos>")?,
            turn: id("<|turn>")?,
            end: id("<turn|>")?,
            think: id("<|think|>")?,
            channel: id("<|channel>")?,
            channel_end: id("<channel|>")?,
        })
    }

    /// The token that ends a turn.
    pub fn end(&self) -> u32 {
        self.end
    }

    /// The ids of a conversation up to where the model's next answer begins. `thinking` lets the
    /// model think before it answers.
    ///
    /// # Errors
    /// A text that cannot be encoded.
    pub fn prompt(&self, tokenizer: &Tokenizer, messages: &[Message], thinking: bool) -> Result<Vec<u32>> {
        let mut ids = vec![self.bos];
        let (system, rest) = match messages.split_first() {
            Some((first, rest)) if first.role == Role::System => (Some(first), rest),
            _ => (None, messages),
        };
        if thinking || system.is_some() {
            ids.push(self.turn);
            ids.extend(tokenizer.encode("system\n", false)?);
            if thinking {
                ids.push(self.think);
                ids.extend(tokenizer.encode("\n", false)?);
            }
            let text = system.map_or("", |m| m.content.trim());
            ids.extend(tokenizer.encode(text, false)?);
            self.close(tokenizer, &mut ids)?;
        }
        for message in rest {
            let name = match message.role {
                Role::System => "system\n",
                Role::User => "user\n",
                Role::Model => "model\n",
            };
            ids.push(self.turn);
            ids.extend(tokenizer.encode(name, false)?);
            ids.extend(tokenizer.encode(message.content.trim(), false)?);
            self.close(tokenizer, &mut ids)?;
        }
        ids.push(self.turn);
        ids.extend(tokenizer.encode("model\n", false)?);
        Ok(ids)
    }

    fn close(&self, tokenizer: &Tokenizer, ids: &mut Vec<u32>) -> Result<()> {
        ids.push(self.end);
        ids.extend(tokenizer.encode("\n", false)?);
        Ok(())
    }

    /// Tells thoughts from what is said, token by token.
    pub fn parts(&self) -> Parts {
        Parts { chat: *self, part: Part::Answer, heading: false }
    }
}

/// See [`Chat::parts`].
#[derive(Debug, Clone)]
pub struct Parts {
    chat: Chat,
    part: Part,
    /// Within the name of a channel, which nobody wants to read.
    heading: bool,
}

impl Parts {
    /// What the next token, whose text is `text`, belongs to; `None` for one that is not to be
    /// shown: control tokens and the name of a channel.
    pub fn push(&mut self, id: u32, text: &str) -> Option<Part> {
        if id == self.chat.channel {
            (self.part, self.heading) = (Part::Thought, true);
            return None;
        }
        if id == self.chat.channel_end {
            (self.part, self.heading) = (Part::Answer, false);
            return None;
        }
        if self.heading {
            // `thought\n` comes before the thought itself.
            self.heading = !text.contains('\n');
            return None;
        }
        Some(self.part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thoughts_are_told_from_answers() {
        let chat = Chat { bos: 2, turn: 105, end: 106, think: 98, channel: 100, channel_end: 101 };
        let mut parts = chat.parts();
        let tokens =
            [(100, ""), (45518, "thought"), (107, "\n"), (7, "Hm"), (107, "\n"), (101, ""), (9, "Yes")];
        let got: Vec<_> = tokens.map(|(id, text)| parts.push(id, text)).into();
        let thought = Some(Part::Thought);
        assert_eq!(got, [None, None, None, thought, thought, None, Some(Part::Answer)], "one thought");
    }
}
