//! Plans made into programs, once each, when they are first needed.

use std::collections::HashMap;

use super::{Choice, Model};
use crate::{
    Result,
    backend::{Program, View},
    plan::{Builder, Rows, SHORT, Stream},
};

/// Which inputs and buffers a plan uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    /// Decode.
    One,
    /// Prefill.
    Many,
    /// Prefill through all layers and the head, with as many tokens as logits fit a binding.
    Full,
}

/// The inputs and buffers of one kind of plan.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) rows: Rows,
    pub(super) run: View,
    pub(super) ids: View,
    pub(super) buffers: HashMap<String, View>,
}

/// Programs made so far; dropped when a cache grows, for bind groups hold its old buffer.
#[derive(Debug, Default)]
pub(super) struct Programs {
    pub(super) decode: Option<Decode>,
    pub(super) sampled: HashMap<u32, Program>,
    pub(super) prefill: Option<(Program, Stream)>,
    pub(super) full: Option<(Program, View)>,
}

impl Programs {
    pub(super) fn chooser<'a>(&'a self, decode: &'a Decode, choice: Choice) -> &'a Program {
        match choice {
            Choice::Greedy => &decode.greedy,
            Choice::Sample { top_k, .. } => &self.sampled[&Choice::keep(top_k)],
        }
    }
}

/// Decode in two halves: prefill runs its own first half and this second one for the last token.
#[derive(Debug)]
pub(super) struct Decode {
    /// Zeros for the sums of both halves, for prefill, which runs only the upper one; the lower one
    /// clears them itself.
    pub(super) clear: Option<Program>,
    pub(super) lower: Program,
    pub(super) upper: Program,
    pub(super) greedy: Program,
    /// What the lower half leaves to the upper one.
    pub(super) between: Stream,
    pub(super) logits: View,
    pub(super) ple: View,
}

impl Model {
    pub(super) fn builder(&mut self, which: Which) -> Builder<'_> {
        let lane = match which {
            Which::One => &mut self.one,
            Which::Many => &mut self.many,
            Which::Full => &mut self.full,
        };
        Builder {
            backend: &mut self.backend,
            config: &self.config,
            weights: &self.weights,
            caches: &self.caches,
            act: self.act,
            kv: self.kv,
            rows: lane.rows,
            fusion: self.fusion,
            run: lane.run,
            ids: lane.ids,
            buffers: &mut lane.buffers,
            steps: Vec::new(),
            summing: false,
            deep: self.slots > SHORT,
        }
    }

    pub(super) async fn prepare_decode(&mut self) -> Result<()> {
        if self.programs.decode.is_some() {
            return Ok(());
        }
        let (owners, layers, chosen) = (self.config.num_kv_owners(), self.config.num_layers(), self.chosen);
        let host = self.host.as_ref().map(|h| h.one);
        let mut b = self.builder(Which::One);
        let mut stream = Stream::Whole(b.embedded().await?);
        for i in 0..owners {
            stream = b.layer(i, stream).await?;
        }
        let between = stream;
        let layers_below = std::mem::take(&mut b.steps);
        for i in owners..layers {
            stream = b.layer(i, stream).await?;
        }
        let logits = b.head(stream).await?;
        let upper = std::mem::take(&mut b.steps);
        b.greedy(&logits, chosen).await?;
        let greedy = std::mem::take(&mut b.steps);
        let ple = b.ple().await?;
        // Only now it is known whether there are sums to clear.
        b.embed(host).await?;
        let mut lower = std::mem::take(&mut b.steps);
        lower.extend(layers_below);
        if b.summing {
            b.clear().await?;
        }
        let clear = std::mem::take(&mut b.steps);
        self.programs.decode = Some(Decode {
            clear: if clear.is_empty() { None } else { Some(self.backend.prepare(clear).await?) },
            lower: self.backend.prepare(lower).await?,
            upper: self.backend.prepare(upper).await?,
            greedy: self.backend.prepare(greedy).await?,
            between,
            logits: logits.view,
            ple,
        });
        Ok(())
    }

    /// After [`Self::prepare_decode`], for decode says in which form it continues the last token.
    pub(super) async fn prepare_prefill(&mut self) -> Result<()> {
        if self.programs.prefill.is_some() {
            return Ok(());
        }
        let owners = self.config.num_kv_owners();
        let host = self.host.as_ref().map(|h| h.many);
        let adds_sums = self.programs.decode.as_ref().is_some_and(|d| d.between.adds_sums());
        let mut b = self.builder(Which::Many);
        let mut stream = Stream::Whole(b.embed(host).await?);
        for i in 0..owners {
            stream = b.layer(i, stream).await?;
        }
        if adds_sums {
            // Then decode gets the sum from here and adds nothing to it.
            stream = Stream::Whole(b.settle(stream, "handover", false).await?);
        }
        let steps = std::mem::take(&mut b.steps);
        self.programs.prefill = Some((self.backend.prepare(steps).await?, stream));
        Ok(())
    }

    pub(super) async fn prepare_sampler(&mut self, keep: u32) -> Result<()> {
        self.prepare_decode().await?;
        if self.programs.sampled.contains_key(&keep) {
            return Ok(());
        }
        let Some(logits) = self.programs.decode.as_ref().map(|d| d.logits) else { return Ok(()) };
        let (chosen, sampling) = (self.chosen, self.sampling);
        let mut b = self.builder(Which::One);
        b.sampled(logits, chosen, sampling, keep).await?;
        let steps = std::mem::take(&mut b.steps);
        let program = self.backend.prepare(steps).await?;
        self.programs.sampled.insert(keep, program);
        Ok(())
    }
}
