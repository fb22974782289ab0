//! Sequences that go on, are taken back, or begin anew; and weights that are read from elsewhere.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use wgforge_model::checkpoint::{Bytes, Header, ReadAt};
use wgforge_model::synth::{SynthFiles, SynthFormat, synth_in_memory};
use wgforge_model::{Checkpoint, Choice, Conversation, Error, Model, Options, Target, TextConfig};

fn files(format: SynthFormat) -> SynthFiles {
    synth_in_memory(&TextConfig::tiny(), format, 3).expect("made")
}

/// On the CPU, with rings of a window of 32 and a chunk of 8.
fn model(checkpoint: Checkpoint) -> Result<Model, Error> {
    let options = Options { chunk: 8, ..Options::default() };
    pollster::block_on(Model::load(&Arc::new(checkpoint), Target::Reference, &options, &mut |_| {}))
}

fn tiny() -> Model {
    model(files(SynthFormat::Bf16).into_checkpoint().expect("opens")).expect("loads")
}

fn ask(conversation: &mut Conversation, model: &mut Model, prompt: &[u32], max_new: u32) -> Vec<u32> {
    let mut answer = Vec::new();
    let mut on_token = |id| {
        answer.push(id);
        ControlFlow::Continue(())
    };
    let outcome = conversation.generate(model, prompt, max_new, Choice::Greedy, &[], &mut on_token);
    pollster::block_on(outcome).expect("it answers");
    answer
}

fn anew(model: &mut Model, prompt: &[u32], max_new: u32) -> Vec<u32> {
    model.reset();
    ask(&mut Conversation::default(), model, prompt, max_new)
}

#[test]
fn what_goes_on_is_what_begins_anew() {
    let (mut going, mut fresh) = (tiny(), tiny());
    let mut conversation = Conversation::default();
    let mut prompt: Vec<u32> = (0..20).map(|i| (i * 37 + 2) % 768).collect();
    let answer = ask(&mut conversation, &mut going, &prompt, 12);
    assert_eq!(answer, anew(&mut fresh, &prompt, 12), "the first answer");

    prompt.extend(&answer);
    prompt.extend([7, 8, 9]);
    // The last token of an answer has not been run.
    assert_eq!(conversation.known(&prompt), 31, "prompt and answer need not run again");
    let second = ask(&mut conversation, &mut going, &prompt, 12);
    assert_eq!(second, anew(&mut fresh, &prompt, 12), "the second answer");

    // Another end: two tokens are taken back.
    prompt.truncate(33);
    prompt.extend([11, 12]);
    assert_eq!(conversation.known(&prompt), 33, "all but the new end");
    let third = ask(&mut conversation, &mut going, &prompt, 4);
    assert_eq!(third, anew(&mut fresh, &prompt, 4), "after taking back");
}

#[test]
fn a_ring_gives_back_only_what_it_still_holds() {
    let (mut going, mut fresh) = (tiny(), tiny());
    let mut conversation = Conversation::default();
    let prompt: Vec<u32> = (0..60).map(|i| (i * 37 + 2) % 768).collect();
    ask(&mut conversation, &mut going, &prompt, 2);
    assert!(!going.rewind(40), "the window before 40 is overwritten");
    assert_eq!(going.position(), 61, "and nothing is forgotten");
    assert!(!going.rewind(100), "there are no 100 tokens");
    let other: Vec<u32> = prompt[..40].iter().copied().chain([5, 6]).collect();
    assert_eq!(conversation.known(&other), 40, "the same beginning");
    let answer = ask(&mut conversation, &mut going, &other, 6);
    assert_eq!(answer, anew(&mut fresh, &other, 6), "it began anew by itself");
    assert!(going.rewind(45), "two tokens back are there");
}

/// A weights file that is read piece by piece, without its head.
struct Elsewhere {
    bytes: Vec<u8>,
    absent: Range<u64>,
    broken: Arc<AtomicBool>,
}

impl ReadAt for Elsewhere {
    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> std::io::Result<()> {
        if self.broken.load(Ordering::Relaxed) {
            return Err(std::io::Error::other("the disk was pulled out"));
        }
        let start = usize::try_from(offset).expect("small");
        assert!(offset + into.len() as u64 <= self.absent.start || offset >= self.absent.end, "never read");
        into.copy_from_slice(&self.bytes[start..start + into.len()]);
        Ok(())
    }

    fn has(&self, range: Range<u64>) -> bool {
        range.end <= self.absent.start || range.start >= self.absent.end
    }
}

#[test]
fn weights_elsewhere_are_read_when_they_are_packed() {
    let files = files(SynthFormat::Mobile);
    let header =
        Header::parse(&files.safetensors, files.safetensors.len() as u64, "memory").expect("a header");
    let (_, head) =
        header.tensors.iter().find(|(name, _)| name == "lm_head.weight").expect("the mobile layout has one");
    let place = |at: usize| (header.data_start + at) as u64;
    let absent = place(head.data_offsets.0)..place(head.data_offsets.1);
    let broken = Arc::new(AtomicBool::new(false));
    let open = || {
        let file = Elsewhere {
            bytes: files.safetensors.clone(),
            absent: absent.clone(),
            broken: Arc::clone(&broken),
        };
        let all = vec![("model.safetensors".to_owned(), Bytes::elsewhere(file))];
        Checkpoint::from_files("elsewhere", files.config.as_bytes(), None, all)
    };
    let checkpoint = open().expect("opens");
    assert!(!checkpoint.has("lm_head.weight"), "what was not fetched is not there");
    let mut there = model(checkpoint).expect("loads");
    let mut here = model(files.clone().into_checkpoint().expect("opens")).expect("loads");
    let prompt = [2, 17, 30, 41, 5];
    assert_eq!(anew(&mut there, &prompt, 8), anew(&mut here, &prompt, 8), "the embedding is the head");

    let checkpoint = open().expect("opens");
    broken.store(true, Ordering::Relaxed);
    let error = model(checkpoint).expect_err("it cannot be read");
    let text = error.to_string();
    assert!(text.contains("model.safetensors") && text.contains("pulled out"), "{text}");
    assert!(matches!(open(), Err(Error::Io { .. })), "the header cannot be read either");
}
