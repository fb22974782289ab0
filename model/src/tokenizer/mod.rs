//! Text to token ids and back.
//!
//! A wrapper around the `tokenizers` crate that reads the published `tokenizer.json`. Three
//! things are added: control tokens in text are believed only where the caller says so, long
//! texts are cut at newlines before they are merged, and [`Decoder`] streams.

mod stream;

use tokenizers::tokenizer::pre_tokenizer::PreTokenizedString;
use tokenizers::{AddedVocabulary, Model as _, OffsetReferential, OffsetType, PreTokenizer as _};

pub use stream::Decoder;

use crate::{Error, Result};

/// Gemma 4's tokenizer.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// The added tokens for text whose control tokens are to be taken literally.
    literal: AddedVocabulary,
    /// Whether no token mixes newlines with anything else, so that cutting there is exact.
    cut_at_newlines: bool,
    file: String,
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer").field("file", &self.file).finish_non_exhaustive()
    }
}

impl Tokenizer {
    /// Reads a `tokenizer.json`, or the one in a folder.
    #[cfg(feature = "native")]
    pub fn from_file(path: impl AsRef<std::path::Path>) -> Result<Self> {
        let mut path = path.as_ref().to_owned();
        if path.is_dir() {
            path.push("tokenizer.json");
        }
        match std::fs::read(&path) {
            Ok(bytes) => Self::parse(&bytes, path.display().to_string()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let advice = "the checkpoint came without a tokenizer; fetch tokenizer.json from the \
                              model's page, or give token ids instead of text";
                Err(Error::MissingFile { path, advice: advice.to_owned() })
            }
            Err(error) => Err(Error::io(path, error)),
        }
    }

    /// A `tokenizer.json` that is already in memory.
    pub fn from_bytes(json: &[u8]) -> Result<Self> {
        Self::parse(json, "tokenizer.json".to_owned())
    }

    fn parse(json: &[u8], file: String) -> Result<Self> {
        let inner = tokenizers::Tokenizer::from_bytes(json).map_err(|e| Error::Tokenizer {
            file: file.clone(),
            reason: format!("not a tokenizer.json that can be used ({e}); fetch the file again"),
        })?;
        let mut literal = inner.get_added_vocabulary().clone();
        literal.set_encode_special_tokens(true);
        let added = literal.get_added_tokens_decoder();
        let cut_at_newlines = !added.values().any(|t| t.lstrip || t.rstrip || t.content.contains('\n'))
            && !inner.get_vocab(false).keys().any(|piece| mixes_newlines(piece));
        Ok(Self { inner, literal, cut_at_newlines, file })
    }

    /// The ids of a text, nothing added. With `special`, control tokens such as `<|turn>` that
    /// stand in the text become their ids; without, they are text like any other, which is what
    /// a user's words need.
    pub fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>> {
        let mut ids = Vec::with_capacity(text.len() / 4 + 8);
        if self.cut_at_newlines {
            for piece in newline_runs(text) {
                self.encode_piece(piece, special, &mut ids)?;
            }
        } else {
            self.encode_piece(text, special, &mut ids)?;
        }
        Ok(ids)
    }

    fn encode_piece(&self, text: &str, special: bool, ids: &mut Vec<u32>) -> Result<()> {
        let fail = |e: tokenizers::Error| Error::Tokenizer {
            file: self.file.clone(),
            reason: format!("cannot encode the text ({e})"),
        };
        let added = if special { self.inner.get_added_vocabulary() } else { &self.literal };
        let mut split: PreTokenizedString = added.extract_and_normalize(self.inner.get_normalizer(), text);
        if let Some(pre_tokenizer) = self.inner.get_pre_tokenizer() {
            pre_tokenizer.pre_tokenize(&mut split).map_err(fail)?;
        }
        split.tokenize(|part| self.inner.get_model().tokenize(part.get())).map_err(fail)?;
        let splits = split.get_splits(OffsetReferential::Normalized, OffsetType::None);
        ids.extend(splits.iter().filter_map(|(_, _, tokens)| tokens.as_ref()).flatten().map(|t| t.id));
        Ok(())
    }

    /// The text of some ids, without the control tokens among them. Ids that the vocabulary
    /// does not have vanish.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        self.decode_with(ids, true)
    }

    /// The text of some ids, control tokens spelled out.
    pub fn decode_special(&self, ids: &[u32]) -> Result<String> {
        self.decode_with(ids, false)
    }

    fn decode_with(&self, ids: &[u32], skip: bool) -> Result<String> {
        self.inner.decode(ids, skip).map_err(|e| Error::Tokenizer {
            file: self.file.clone(),
            reason: format!("cannot decode the tokens ({e})"),
        })
    }

    /// Decodes ids one by one as they come. With `special`, control tokens are spelled out.
    pub fn decoder(&self, special: bool) -> Decoder<'_> {
        Decoder::new(self, special)
    }

    /// The id of a token, such as `<|turn>`.
    pub fn token_id(&self, token: &str) -> Result<u32> {
        self.inner.token_to_id(token).ok_or_else(|| Error::UnknownToken { token: token.to_owned() })
    }

    /// A token as the vocabulary spells it ("▁" for a space, `<0x0A>` for a byte).
    pub fn piece(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// Whether the id is a control token.
    pub fn is_special(&self, id: u32) -> bool {
        self.literal.get_added_tokens_decoder().get(&id).is_some_and(|token| token.special)
    }

    /// The token that every sequence begins with, `<bos>`.
    pub fn bos(&self) -> Result<u32> {
        self.token_id("<bos>")
    }

    /// Ids in the vocabulary, control tokens included.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }
}

fn mixes_newlines(piece: &str) -> bool {
    piece.contains('\n') && piece.bytes().any(|b| b != b'\n')
}

/// The text as alternating runs without newlines and of newlines only. No merge crosses such a
/// border, and merging takes longer than proportionally to its input.
fn newline_runs(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let newline = *rest.as_bytes().first()? == b'\n';
        let end = rest.bytes().position(|b| (b == b'\n') != newline).unwrap_or(rest.len());
        let (run, tail) = rest.split_at(end);
        rest = tail;
        Some(run)
    })
}
