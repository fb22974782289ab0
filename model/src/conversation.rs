//! A sequence of tokens that is given whole each time, and run only where it is new.

use std::ops::ControlFlow;

use crate::{Choice, Model, Request, Result, Stats};

/// What the model's caches hold. A conversation's next prompt mostly begins with the one before and
/// its answer: those tokens need not run again.
#[derive(Debug, Clone, Default)]
pub struct Conversation {
    run: Vec<u32>,
}

impl Conversation {
    /// Tokens of `prompt` that need not run again.
    pub fn known(&self, prompt: &[u32]) -> usize {
        let same = self.run.iter().zip(prompt).take_while(|(a, b)| a == b).count();
        // At least one token must run, for its logits.
        same.min(prompt.len().saturating_sub(1))
    }

    /// As [`Model::generate`], for a prompt that is everything from the first token on.
    ///
    /// # Errors
    /// As [`Model::generate`]. After one, the next call begins anew.
    pub async fn generate(
        &mut self,
        model: &mut Model,
        prompt: &[u32],
        max_new: u32,
        choice: Choice,
        stop: &[u32],
        on_token: &mut dyn FnMut(u32) -> ControlFlow<()>,
    ) -> Result<Stats> {
        let mut known = self.known(prompt);
        let position = u32::try_from(known).unwrap_or(u32::MAX);
        // Somebody else may have used the model since.
        if model.position() as usize != self.run.len() || !model.rewind(position) {
            model.reset();
            known = 0;
        }
        self.run.clear();
        let request = Request { prompt: prompt[known..].to_vec(), max_new, choice, stop: stop.to_vec() };
        let mut answer = Vec::new();
        let outcome = model
            .generate(&request, &mut |id| {
                answer.push(id);
                on_token(id)
            })
            .await;
        match outcome {
            Ok(stats) => {
                self.run = [prompt, &answer].concat();
                self.run.truncate(model.position() as usize);
                Ok(stats)
            }
            Err(error) => {
                model.reset();
                Err(error)
            }
        }
    }
}
