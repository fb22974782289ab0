//! The plan of a decoded token, dispatch by dispatch, as data.

use std::ops::ControlFlow;

use super::{Choice, Model};
use crate::{
    Result,
    backend::{Backend, Step, View},
    generate::Request,
};

/// One dispatch of a decoded token.
#[derive(Debug, Clone)]
pub struct Dispatch {
    /// Where in the model it stands: `3.qkv`, `head`, …
    pub step: String,
    /// The kernel's family.
    pub kernel: &'static str,
    /// Its configuration, as JSON.
    pub config: String,
    /// Workgroups.
    pub groups: [u32; 3],
    /// Bytes it must move at the present position.
    pub bytes: u64,
    /// The closest dispatch before it that writes what it binds, and the binding: what it has to wait
    /// for, behind a barrier.
    pub waits_for: Option<(String, &'static str)>,
    /// GPU time, µs, with what a time stamp adds; `None` where there are none.
    pub us: Option<f64>,
}

impl Model {
    /// The part of the time during which the GPU works while tokens are generated: its own time for each
    /// token, added up, over the time in which they came. `None` without timestamps or where the context has
    /// no room for `tokens` of them. Begins a sequence with `prompt`, and leaves it with these tokens. Each
    /// submission takes queries of its own: a few hundred tokens are many.
    ///
    /// # Errors
    /// A failing device.
    pub async fn busy(&mut self, prompt: &[u32], tokens: u32, choice: Choice) -> Result<Option<f64>> {
        // One chunk: each takes queries as well.
        let prompt = &prompt[prompt.len().saturating_sub(self.chunk as usize)..];
        if prompt.len() + tokens as usize > self.config.max_position {
            return Ok(None);
        }
        self.reset();
        let request = Request { prompt: prompt.to_vec(), max_new: tokens, choice, stop: Vec::new() };
        let Backend::Gpu(gpu) = &mut self.backend else { return Ok(None) };
        gpu.time_submissions();
        let stats = self.generate(&request, &mut |_| ControlFlow::Continue(())).await;
        let Backend::Gpu(gpu) = &mut self.backend else { return Ok(None) };
        let times = gpu.submission_times().await?;
        let stats = stats?;
        Ok(times.filter(|_| stats.decode_s > 0.0).map(|times| {
            // The prompt's submission chooses the first token; what follows is decoding.
            times.iter().skip(1).sum::<f64>() / (stats.decode_s * 1e6)
        }))
    }

    /// Every dispatch of a decoded token and of its greedy choice, in order, at the current position.
    /// Leaves the sequence as it was.
    ///
    /// # Errors
    /// A failing device.
    pub async fn dispatches(&mut self) -> Result<Vec<Dispatch>> {
        self.reserve(1).await?;
        self.prepare_decode().await?;
        let position = self.position;
        self.write_one(2, Choice::Greedy)?;
        let mut all: Vec<Dispatch> = Vec::new();
        let Some(d) = &self.programs.decode else { return Ok(all) };
        let mut before: Vec<&Step> = Vec::new();
        for program in [&d.lower, &d.upper, &d.greedy] {
            let times = match &mut self.backend {
                Backend::Gpu(gpu) => gpu.profile(program, 1).await?,
                Backend::Cpu(_) => None,
            };
            for (i, step) in program.steps.iter().enumerate() {
                all.push(Dispatch {
                    step: step.label.clone(),
                    kernel: step.variant.kernel(),
                    config: step.variant.config_json(),
                    groups: step.variant.groups(1),
                    bytes: step.variant.cost(1, position).bytes(),
                    waits_for: waits_for(step, &before),
                    us: times.as_ref().and_then(|t| t.get(i).copied()),
                });
                before.push(step);
            }
        }
        self.position = position;
        Ok(all)
    }
}

fn waits_for(step: &Step, before: &[&Step]) -> Option<(String, &'static str)> {
    let names = step.variant.bindings();
    before.iter().rev().find_map(|earlier| {
        let written = earlier.variant.written();
        let written: Vec<View> = (earlier.variant.bindings().into_iter().zip(&earlier.views))
            .filter(|(name, _)| written.contains(name))
            .map(|(_, view)| *view)
            .collect();
        let found = step.views.iter().position(|view| written.iter().any(|w| w.overlaps(*view)))?;
        Some((earlier.label.clone(), names[found]))
    })
}
