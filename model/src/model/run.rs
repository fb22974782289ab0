//! Prefill and decode: what is submitted for a sequence of tokens.

use wgforge_codegen::types::Act;

use super::{Choice, Model, programs::Which, to_u32};
use crate::{
    Error, Result,
    backend::{Backend, View, Work},
    generate::UnderWay,
    plan::{RING, Stream, stream_bytes},
};

impl Model {
    /// Runs `tokens` (at least one) and submits the choice of the one that follows.
    pub(crate) async fn prefill(&mut self, tokens: &[u32], choice: Choice) -> Result<UnderWay> {
        self.check_tokens(tokens)?;
        self.reserve(to_u32(tokens.len())).await?;
        self.prepare_choice(choice).await?;
        let (last, before) = tokens.split_last().ok_or_else(|| Error::Usage("the prompt is empty".into()))?;
        // A single token is decode's business.
        if before.is_empty() {
            self.write_one(*last, choice)?;
            return self.decode(choice, 1);
        }
        self.prepare_prefill().await?;
        let chunk = self.chunk as usize;
        let mut rest = tokens;
        while rest.len() > chunk {
            self.write_many(&rest[..chunk], Which::Many)?;
            let Some((program, _)) = &self.programs.prefill else { break };
            self.backend.execute(&[Work::Run(program, self.chunk)], None)?;
            self.position += self.chunk;
            rest = &rest[chunk..];
        }
        self.write_many(rest, Which::Many)?;
        let n = to_u32(rest.len());
        self.position += n - 1;
        self.write_one(*last, choice)?;
        let (Some((program, stream)), Some(decode)) = (&self.programs.prefill, &self.programs.decode) else {
            unreachable!("both were prepared")
        };
        // The last token continues alone: its rows move to decode's buffers.
        let mut work = vec![Work::Run(program, n)];
        let row = |view: View, bytes: u64| view.part(bytes * u64::from(n - 1), bytes);
        let mut hand_over = |from: View, to: View, bytes: u64| {
            work.push(Work::Copy(row(from, bytes), to.part(0, bytes)));
        };
        match (*stream, decode.between) {
            (Stream::Pending { x, y, .. }, Stream::Pending { x: to_x, y: to_y, .. }) => {
                hand_over(x, to_x, stream_bytes(&self.config));
                hand_over(y, to_y, self.act.row_bytes(to_u32(self.config.hidden)));
            }
            // The sums that decode would add are zero.
            (Stream::Whole(x), Stream::Pending { x: to_x, .. }) => {
                hand_over(x, to_x, stream_bytes(&self.config));
            }
            _ => unreachable!("a model has at least one layer with a cache"),
        }
        let ple_row = Act::F32.row_bytes(to_u32(self.config.ple_dim));
        let many_ple = self.many.buffers.iter().find(|(k, _)| k.starts_with("ple:")).map(|(_, v)| *v);
        let many_ple = many_ple.unwrap_or_else(|| unreachable!("prefill made its per-layer inputs"));
        for i in 0..self.config.num_layers() as u64 {
            let from = many_ple.part((i * u64::from(self.chunk) + u64::from(n - 1)) * ple_row, ple_row);
            work.push(Work::Copy(from, decode.ple.part(i * ple_row, ple_row)));
        }
        work.extend(decode.clear.as_ref().map(|clear| Work::Run(clear, 1)));
        work.push(Work::Run(&decode.upper, 1));
        work.push(Work::Run(self.programs.chooser(decode, choice), 1));
        let under_way = submit(&mut self.backend, &work, self.chosen, self.position, 1)?;
        self.position += 1;
        Ok(under_way)
    }

    /// Submits tokens, the first of which the submission before chose, and the choice of the next: at
    /// most `most`, at least one.
    pub(crate) fn decode(&mut self, choice: Choice, most: u32) -> Result<UnderWay> {
        let Some(decode) = &self.programs.decode else { unreachable!("decode was prepared") };
        let chooser = self.programs.chooser(decode, choice);
        // Their ids lie in a row in the ring.
        let tokens = most.clamp(1, RING - self.position % RING);
        let one = [Work::Run(&decode.lower, 1), Work::Run(&decode.upper, 1), Work::Run(chooser, 1)];
        let work = one.repeat(tokens as usize);
        let under_way = submit(&mut self.backend, &work, self.chosen, self.position, tokens)?;
        self.position += tokens;
        Ok(under_way)
    }

    /// Before decoding a token whose id the host knows: gathers its per-layer embedding where the
    /// device cannot.
    pub(crate) fn gather_for(&mut self, token: u32) -> Result<()> {
        match &self.host {
            Some(h) => h.gather(&mut self.backend, &[token], false),
            None => Ok(()),
        }
    }

    pub(crate) async fn prepare_choice(&mut self, choice: Choice) -> Result<()> {
        self.prepare_decode().await?;
        if let Choice::Sample { temperature, top_k, top_p, .. } = choice {
            self.prepare_sampler(Choice::keep(top_k)).await?;
            let params = [temperature.to_bits(), top_p.to_bits(), top_k, 0];
            self.backend.write(self.sampling, bytemuck::cast_slice(&params));
        }
        Ok(())
    }

    pub(super) fn write_one(&mut self, token: u32, choice: Choice) -> Result<()> {
        let seed = if let Choice::Sample { seed, .. } = choice { seed } else { 0 };
        let [low, high] = bytemuck::cast::<u64, [u32; 2]>(seed);
        self.backend.write(self.one.run, bytemuck::cast_slice(&[self.position, 1, low, high]));
        self.backend.write(self.one.ids, bytemuck::cast_slice(&[token]));
        self.gather_for(token)
    }

    pub(super) fn write_many(&mut self, tokens: &[u32], which: Which) -> Result<()> {
        let lane = if which == Which::Full { &self.full } else { &self.many };
        let run = [self.position, to_u32(tokens.len()), 0, 0];
        self.backend.write(lane.run, bytemuck::cast_slice(&run));
        self.backend.write(lane.ids, bytemuck::cast_slice(tokens));
        match &self.host {
            Some(h) => h.gather(&mut self.backend, tokens, true),
            None => Ok(()),
        }
    }

    pub(super) fn check_tokens(&self, tokens: &[u32]) -> Result<()> {
        let vocab = self.config.vocab_size.min(self.config.vocab_size_per_layer_input);
        match tokens.iter().find(|t| **t as usize >= vocab) {
            Some(t) => Err(Error::Usage(format!("token id {t} is outside the vocabulary of {vocab}"))),
            None => Ok(()),
        }
    }
}

/// Submits what chooses `tokens` tokens, beginning with the one behind `position`.
fn submit(
    backend: &mut Backend,
    work: &[Work<'_>],
    chosen: View,
    position: u32,
    tokens: u32,
) -> Result<UnderWay> {
    let slots = chosen.part(u64::from(position % RING) * 4, u64::from(tokens) * 4);
    let ids = backend.execute(work, Some(slots))?;
    Ok(UnderWay { ids: ids.unwrap_or_else(|| unreachable!("a view was asked for")), tokens })
}

#[cfg(test)]
mod tests {
    use std::{path::Path, sync::Arc};

    use pollster::block_on;
    use wgforge_runtime::{Device, DeviceOptions};

    use super::{super::Target, *};
    use crate::{Checkpoint, Kernels, Options};

    fn demo(target: Target) -> Model {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("demo");
        let checkpoint = Arc::new(Checkpoint::open(folder).expect("the demo model"));
        block_on(Model::load(&checkpoint, target, &Options::default(), &mut |_| {})).expect("loads")
    }

    /// `count` greedy tokens behind a prompt, `each` a submission.
    fn greedy(model: &mut Model, prompt: &[u32], count: usize, each: u32) -> Vec<u32> {
        model.reset();
        let first = block_on(model.prefill(prompt, Choice::Greedy)).expect("prefill");
        let mut ids = block_on(model.take(first.ids)).expect("the first token");
        while ids.len() < count {
            let next = model.decode(Choice::Greedy, each).expect("decode");
            assert!((1..=each).contains(&next.tokens), "{} tokens of {each}", next.tokens);
            let more = block_on(model.take(next.ids)).expect("tokens");
            assert_eq!(more.len(), next.tokens as usize);
            ids.extend(more);
        }
        ids.truncate(count);
        ids
    }

    #[test]
    fn tokens_of_one_submission_are_those_of_many() {
        // The ring of chosen tokens ends at a position of 64: the last submission before is a short one.
        let prompt: Vec<u32> = (0..50).map(|i| 300 + i * 7 % 1500).collect();
        let mut targets = vec![Target::Reference];
        match block_on(Device::request(&DeviceOptions::default())) {
            Ok(device) => {
                let kernels = Kernels::generic(device.caps());
                targets.push(Target::Gpu(device, kernels));
            }
            Err(e) => {
                assert!(std::env::var_os("WGFORGE_REQUIRE_ADAPTER").is_none(), "an adapter is required: {e}");
            }
        }
        for target in targets {
            let mut model = demo(target);
            let one_by_one = greedy(&mut model, &prompt, 30, 1);
            for each in [2, 3, 8] {
                assert_eq!(greedy(&mut model, &prompt, 30, each), one_by_one, "{each} a submission");
            }
        }
    }
}
