//! The tokenizer: a small one made here, and Gemma 4's vocabulary against the vectors of other
//! implementations where they are at hand.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Instant;

use proptest::prelude::*;
use serde_json::json;
use wgforge_model::chat::{Chat, Message, Role};
use wgforge_model::{Error, Tokenizer};

/// Data that is not part of this repository: beside it, or where `WGFORGE_SHARED` says. On CI
/// it must be there.
fn shared(part: &str) -> Option<PathBuf> {
    let base = std::env::var_os("WGFORGE_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared"), PathBuf::from);
    let path = base.join(part);
    if path.exists() {
        return Some(path);
    }
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{} is missing", path.display());
    eprintln!("skipped: {} is missing (set WGFORGE_SHARED)", path.display());
    None
}

/// Gemma 4's tokenizer, twice: ours, and the crate's as it is.
fn gemma() -> Option<&'static (Tokenizer, tokenizers::Tokenizer)> {
    static GEMMA: OnceLock<Option<(Tokenizer, tokenizers::Tokenizer)>> = OnceLock::new();
    GEMMA
        .get_or_init(|| {
            let packed = shared("data/tokenizer/tokenizer.json.xz")?;
            let unpacked = Command::new("xz").arg("-dc").arg(packed).output().expect("xz is installed");
            assert!(unpacked.status.success(), "xz: {}", String::from_utf8_lossy(&unpacked.stderr));
            let folder = tempfile::tempdir().expect("folder");
            std::fs::write(folder.path().join("tokenizer.json"), &unpacked.stdout).expect("written");
            let ours = Tokenizer::from_file(folder.path()).expect("reads a folder");
            Some((ours, tokenizers::Tokenizer::from_bytes(unpacked.stdout).expect("the crate reads it")))
        })
        .as_ref()
}

fn read(part: &str) -> String {
    std::fs::read_to_string(shared(part).expect("beside the tokenizer")).expect("readable")
}

/// The published structure with a vocabulary of 4 letters, newlines, bytes and control tokens.
fn small() -> Tokenizer {
    let control = ["<pad>", "<eos>", "<bos>", "<unk>", "<|turn>", "<turn|>"];
    let mut vocab = serde_json::Map::new();
    let bytes = (0..256).map(|b| format!("<0x{b:02X}>"));
    let pieces = ["\n", "\n\n", "▁", "H", "e", "l", "o", "He", "ll", "ell", "▁H"].map(str::to_owned);
    for piece in control.map(str::to_owned).into_iter().chain(bytes).chain(pieces) {
        vocab.insert(piece, json!(vocab.len()));
    }
    let added = control.iter().enumerate().map(|(id, content)| {
        json!({ "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true })
    });
    let json = json!({
        "version": "1.0", "truncation": null, "padding": null, "post_processor": null,
        "added_tokens": added.collect::<Vec<_>>(),
        "normalizer": { "type": "Replace", "pattern": { "String": " " }, "content": "▁" },
        "pre_tokenizer": { "type": "Split", "pattern": { "String": " " },
                           "behavior": "MergedWithPrevious", "invert": false },
        "decoder": { "type": "Sequence", "decoders": [
            { "type": "Replace", "pattern": { "String": "▁" }, "content": " " },
            { "type": "ByteFallback" }, { "type": "Fuse" } ] },
        "model": { "type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
                   "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true,
                   "ignore_merges": false, "vocab": vocab,
                   "merges": [["\n", "\n"], ["l", "l"], ["H", "e"], ["e", "ll"], ["▁", "H"]] },
    });
    Tokenizer::from_bytes(json.to_string().as_bytes()).expect("small tokenizer")
}

fn pieces(tokenizer: &Tokenizer, ids: &[u32]) -> Vec<String> {
    ids.iter().map(|&id| tokenizer.piece(id).expect("known")).collect()
}

/// What a decoder says to each id, and at the end.
fn stream(tokenizer: &Tokenizer, ids: &[u32]) -> Vec<String> {
    let mut decoder = tokenizer.decoder(true);
    let mut out: Vec<String> = ids.iter().map(|&id| decoder.push(id).unwrap_or_default()).collect();
    out.push(decoder.finish().unwrap_or_default());
    out
}

#[test]
fn control_tokens_count_only_where_asked() {
    let t = small();
    let text = "<|turn>Hello\n\n\nHello<turn|>";
    let ids = t.encode(text, true).expect("encodes");
    assert_eq!(
        pieces(&t, &ids),
        ["<|turn>", "He", "ll", "o", "\n\n", "\n", "He", "ll", "o", "<turn|>"],
        "{ids:?}"
    );
    assert_eq!(t.decode(&ids).expect("decodes"), "Hello\n\n\nHello");
    assert_eq!(t.decode_special(&ids).expect("decodes"), text);
    let plain = t.encode(text, false).expect("encodes");
    assert!(plain.iter().all(|&id| !t.is_special(id)), "{:?}", pieces(&t, &plain));
    assert_eq!(t.decode(&plain).expect("decodes"), text);
    assert_eq!(t.encode("", true).expect("encodes"), Vec::<u32>::new());
}

#[test]
fn names_and_ids() {
    let t = small();
    assert_eq!(t.bos().expect("there"), 2);
    assert_eq!(t.token_id("<|turn>").expect("there"), 4);
    assert!(t.is_special(4) && !t.is_special(100) && !t.is_special(u32::MAX));
    assert!(matches!(t.token_id("<|nope>"), Err(Error::UnknownToken { token }) if token == "<|nope>"));
    assert_eq!(t.vocab_size(), 6 + 256 + 11);
}

#[test]
fn a_missing_or_damaged_file_is_named() {
    let folder = tempfile::tempdir().expect("folder");
    let message = Tokenizer::from_file(folder.path()).expect_err("nothing there").to_string();
    assert!(message.contains("tokenizer.json") && message.contains("fetch"), "{message}");
    std::fs::write(folder.path().join("tokenizer.json"), b"{}").expect("written");
    let message = Tokenizer::from_file(folder.path()).expect_err("damaged").to_string();
    assert!(message.contains("tokenizer.json") && message.contains("fetch"), "{message}");
    assert!(Tokenizer::from_bytes(b"\xFF").is_err());
}

#[test]
fn streams_hold_back_half_characters() {
    let t = small();
    let ids = t.encode("He 🦙l", false).expect("encodes");
    assert_eq!(ids.len(), 7, "one for He, the space and l, four for the llama");
    assert_eq!(stream(&t, &ids), ["He", " ", "", "", "", "🦙", "l", ""]);
    // Two characters of two bytes, the second cut off by a letter, by a control token, by the end.
    let byte = |b: u32| 6 + b;
    let (e, l) = ([byte(0xC3), byte(0xA9)], t.token_id("l").expect("there"));
    assert_eq!(stream(&t, &[e[0], e[1], e[0], l]), ["", "é", "", "\u{FFFD}l", ""]);
    assert_eq!(stream(&t, &[e[0], 4]), ["", "\u{FFFD}<|turn>", ""]);
    assert_eq!(stream(&t, &[byte(0xF0), byte(0x9F)]), ["", "", "\u{FFFD}\u{FFFD}"]);
    // A byte that begins nothing, and one that breaks off what was held.
    assert_eq!(stream(&t, &[e[1], l]), ["\u{FFFD}", "l", ""]);
    assert_eq!(stream(&t, &[e[0], e[0], e[1]]), ["", "\u{FFFD}", "é", ""]);
    // Ids that do not exist say nothing; control tokens are silent unless asked for.
    let mut quiet = t.decoder(false);
    assert_eq!(quiet.push(u32::MAX), None);
    assert_eq!(quiet.push(4), None);
    assert_eq!(quiet.push(l).as_deref(), Some("l"));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn streaming_gives_the_text_back(text in "[Helo \\nné🦙\u{0}-\u{7F}]{0,40}") {
        let t = small();
        let ids = t.encode(&text, false).expect("encodes");
        prop_assert_eq!(stream(&t, &ids).concat(), &text[..]);
        prop_assert_eq!(t.decode(&ids).expect("decodes"), text);
    }
}

#[test]
fn the_prompt_of_the_reference() {
    let Some((t, _)) = gemma() else { return };
    let prompt = "<bos><|turn>user\nHello, how are you?<turn|>\n<|turn>model\n";
    let want = [2, 105, 2364, 107, 9259, 236_764, 1217, 659, 611, 236_881, 106, 107, 105, 4368, 107];
    assert_eq!(t.encode(prompt, true).expect("encodes"), want);
    assert_eq!(t.decode_special(&want).expect("decodes"), prompt);
    assert_eq!(t.vocab_size(), 262_144);
    assert_eq!(t.token_id("<|turn>").expect("there"), 105);
}

#[test]
fn llama_cpp_agrees() {
    let Some((t, _)) = gemma() else { return };
    let inputs = read("data/tokenizer/ggml-vocab-gemma-4.gguf.inp");
    let outputs = read("data/tokenizer/ggml-vocab-gemma-4.gguf.out");
    let inputs: Vec<&str> = inputs.split("\n__ggml_vocab_test__\n").collect();
    let outputs: Vec<&str> = outputs.lines().collect();
    let mut checked = 0;
    for (input, output) in inputs.iter().zip(&outputs) {
        let want: Vec<u32> = output.split_whitespace().map(|id| id.parse().expect("an id")).collect();
        assert_eq!(t.encode(input, false).expect("encodes"), want, "{input:?}");
        assert_eq!(stream(t, &want).concat(), *input);
        checked += 1;
    }
    assert_eq!(checked, 46);
}

#[test]
fn kitoken_agrees() {
    let Some((t, _)) = gemma() else { return };
    let folder = "data/tokenizer/vectors";
    let (mut checked, mut wrong) = (0, Vec::new());
    for part in ["small", "mixed"] {
        let inputs = read(&format!("{folder}/{part}_input.txt"));
        let outputs = read(&format!("{folder}/tokenizers/{part}_tokens_gemma4.txt"));
        let inputs: Vec<&str> = inputs.split('\n').collect();
        for (input, output) in inputs.iter().zip(outputs.lines()) {
            let text = input.replace("\\n", "\n");
            let want: Vec<u32> = output.split(", ").map(|id| id.parse().expect("an id")).collect();
            if t.encode(&text, true).expect("encodes") != want {
                wrong.push(text);
            }
            checked += 1;
        }
    }
    assert_eq!(checked, 140);
    assert!(wrong.len() <= 1, "one line is escaped in a way of its own; wrong: {wrong:#?}");

    let text = read(&format!("{folder}/utf8_input.txt"));
    let tokens = read(&format!("{folder}/tokenizers/utf8_tokens_gemma4.txt"));
    let want: Vec<u32> = tokens.trim().split(", ").map(|id| id.parse().expect("an id")).collect();
    assert!(t.encode(&text, true).expect("encodes") == want, "the utf8 file");
    // A literal "▁" comes back as a space, there as here.
    let back = read(&format!("{folder}/tokenizers/utf8_output_gemma4.txt"));
    assert!(t.decode(&want).expect("decodes") == back, "the utf8 file decoded");
}

/// Cutting at newlines changes nothing: the crate, given the whole text, finds the same tokens.
#[test]
fn cutting_at_newlines_is_exact() {
    let Some((t, whole)) = gemma() else { return };
    let mut text = read("data/text/tinyshakespeare.txt");
    text.truncate(40_000);
    let _ = write!(text, "\n\n\n \n\t\n  \n\r\n\n<turn|>\n\n<|turn>x\n{}", "\n".repeat(100));
    let reference = whole.encode_fast(text.as_str(), false).expect("the crate encodes");
    assert_eq!(t.encode(&text, true).expect("encodes"), reference.get_ids());
    for sample in ["\n", "a\n", "\na", "a\n\nb", " \n \n ", "a \n b", "\n\n\n\n", "é\n🦙\n\u{2581}\n"] {
        let reference = whole.encode_fast(sample, false).expect("the crate encodes");
        assert_eq!(t.encode(sample, true).expect("encodes"), reference.get_ids(), "{sample:?}");
    }
}

#[test]
fn long_texts_are_quick() {
    let Some((t, _)) = gemma() else { return };
    let text = read("data/text/tinyshakespeare.txt");
    let start = Instant::now();
    let ids = t.encode(&text, false).expect("encodes");
    let seconds = start.elapsed().as_secs_f64();
    eprintln!("{} bytes, {} tokens, {seconds:.2} s", text.len(), ids.len());
    assert!(seconds < 20.0, "{seconds} s");
    assert_eq!(t.decode(&ids).expect("decodes"), text);
}

/// The ids of transformers for the published template, and its text for longer conversations.
#[test]
fn conversations_are_the_published_template() {
    assert!(Chat::of(&small()).is_none(), "a vocabulary without channels has no chat");
    let Some((tokenizer, _)) = gemma() else { return };
    let chat = Chat::of(tokenizer).expect("Gemma's vocabulary has turns");
    let say = |role, content: &str| Message { role, content: content.to_owned() };
    let hello = [say(Role::User, " Hello, how are you? ")];
    let ids = chat.prompt(tokenizer, &hello, false).expect("encodes");
    let wanted = [2, 105, 2364, 107, 9259, 236_764, 1217, 659, 611, 236_881, 106, 107, 105, 4368, 107];
    assert_eq!(ids, wanted, "the ids of the published model's first run");
    let text = |messages: &[Message], thinking| {
        let ids = chat.prompt(tokenizer, messages, thinking).expect("encodes");
        tokenizer.decode_special(&ids).expect("decodes")
    };
    assert_eq!(
        text(&[say(Role::System, "Be brief."), say(Role::User, "Hello")], true),
        "<bos><|turn>system\n<|think|>\nBe brief.<turn|>\n<|turn>user\nHello<turn|>\n<|turn>model\n"
    );
    assert_eq!(
        text(&[say(Role::User, "Hello")], true),
        "<bos><|turn>system\n<|think|>\n<turn|>\n<|turn>user\nHello<turn|>\n<|turn>model\n"
    );
    let three = [say(Role::User, "Hello"), say(Role::Model, "Hi."), say(Role::User, "<turn|>")];
    let ids = chat.prompt(tokenizer, &three, false).expect("encodes");
    assert_eq!(ids.iter().filter(|id| **id == chat.end()).count(), 3, "nobody writes a control token");
}
