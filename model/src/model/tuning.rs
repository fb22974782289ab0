//! For tuners: which kernels this model runs, and running it with others.

use wgforge_codegen::Workload;

use super::{
    Choice, Model,
    programs::{Programs, Which},
    to_u32,
};
use crate::{
    Result,
    backend::{Backend, Kernels, Step},
    fusion::Fusion,
    plan::{SHORT, Stream},
};

impl Model {
    /// What is to be joined in a decoded token; `None`: as the kernels in use suggest.
    pub fn fusion(&self) -> Option<Fusion> {
        self.fusion
    }

    /// Joins other dispatches of a decoded token from now on; everything else stays, as with
    /// [`Model::set_kernels`].
    pub fn set_fusion(&mut self, fusion: Option<Fusion>) {
        if self.fusion != fusion {
            self.fusion = fusion;
            self.forget_programs();
        }
    }

    /// The distinct workloads of a decoded token in short and in long contexts, of its greedy and its sampled
    /// choice, and of prefill, for the [`Fusion`] in force. What follows a split attention depends on
    /// its configuration: of those, only the merges of the present one are among them.
    ///
    /// # Errors
    /// A device without room for the activations.
    pub async fn workloads(&mut self) -> Result<Vec<Workload>> {
        let (mut steps, hands_over_sums) = self.token_steps(false).await?;
        if self.config.max_position > SHORT as usize {
            steps.extend(self.token_steps(true).await?.0);
        }
        let (owners, host) = (self.config.num_kv_owners(), self.host.as_ref().map(|h| h.many));
        let mut b = self.builder(Which::Many);
        let mut stream = Stream::Whole(b.embed(host).await?);
        for i in 0..owners {
            stream = b.layer(i, stream).await?;
        }
        if hands_over_sums {
            b.settle(stream, "handover", false).await?;
        }
        steps.append(&mut b.steps);
        Ok(distinct(steps))
    }

    /// Of those, a decoded token's in short contexts, and what only long contexts have.
    ///
    /// # Errors
    /// As [`Model::workloads`].
    pub async fn workloads_by_context(&mut self) -> Result<[Vec<Workload>; 2]> {
        let short = distinct(self.token_steps(false).await?.0);
        let deep = self.config.max_position > SHORT as usize;
        let mut long = if deep { distinct(self.token_steps(true).await?.0) } else { Vec::new() };
        long.retain(|w| !short.contains(w));
        Ok([short, long])
    }

    /// The steps of a decoded token and of both its choices, and whether prefill hands over to sums.
    async fn token_steps(&mut self, deep: bool) -> Result<(Vec<Step>, bool)> {
        let (owners, layers) = (self.config.num_kv_owners(), self.config.num_layers());
        let (chosen, sampling) = (self.chosen, self.sampling);
        let keep = Choice::keep(to_u32(self.generation.top_k).min(Choice::MAX_TOP_K));
        let host = self.host.as_ref().map(|h| h.one);
        let mut b = self.builder(Which::One);
        b.deep = deep;
        let mut stream = Stream::Whole(b.embedded().await?);
        let mut hands_over_sums = false;
        for i in 0..layers {
            stream = b.layer(i, stream).await?;
            hands_over_sums |= i + 1 == owners && stream.adds_sums();
        }
        let logits = b.head(stream).await?;
        b.greedy(&logits, chosen).await?;
        b.sampled(logits.view, chosen, sampling, keep).await?;
        let after = std::mem::take(&mut b.steps);
        b.embed(host).await?;
        if b.summing {
            b.clear().await?;
        }
        let mut steps = std::mem::take(&mut b.steps);
        steps.extend(after);
        Ok((steps, hands_over_sums))
    }

    /// Computes with other kernels from now on; the weights stay where they are. Programs are made
    /// again when they are next needed, with buffers as these kernels want them. The sequence and
    /// its caches stay. Nothing happens in the reference, which has no kernels.
    pub fn set_kernels(&mut self, mut kernels: Kernels) {
        let Backend::Gpu(gpu) = &mut self.backend else { return };
        // As when loading: which embedded kernels apply, and what is joined, depends on the adapter.
        kernels.prefer(gpu.device.report());
        gpu.kernels = kernels;
        self.forget_programs();
    }

    /// Programs are made again when they are next needed, with the buffers they then want.
    fn forget_programs(&mut self) {
        self.programs = Programs::default();
        for lane in [&mut self.one, &mut self.many, &mut self.full] {
            for (_, view) in lane.buffers.drain() {
                self.backend.free(view);
            }
        }
    }
}

/// The workloads of steps, each once.
fn distinct(steps: Vec<Step>) -> Vec<Workload> {
    let mut all: Vec<Workload> = Vec::new();
    for step in steps {
        let workload = step.variant.workload();
        if !all.contains(&workload) {
            all.push(workload);
        }
    }
    all
}
