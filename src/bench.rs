//! `wgforge bench`: prefill and decode speed, against what the memory could deliver.

use std::ops::ControlFlow;

use anyhow::{Result, ensure};
use clap::ValueEnum as _;
use pollster::block_on;
use wgforge::model::{Choice, Fusion, Model, Request, Stats, WeightMode};

use crate::bench_compare;
use crate::bench_report::{self, Details, Figures};
use crate::cli::{BenchArgs, Global, PlanChoice};
use crate::console::usage;
use crate::numbers::{Spread, random};
use crate::session::{Place, Session};

/// Tokens whose logits are looked at.
const PROBED: usize = 4;

/// Runs the subcommand.
pub(crate) fn execute(global: &Global, args: &BenchArgs) -> Result<()> {
    // What is wrong with it is better known before measuring than after.
    let before = args.compare.as_deref().map(bench_compare::read).transpose()?;
    let mut session = Session::open(global, WeightMode::Int4, args.json)?;
    session.model.set_fusion(match args.plan {
        PlanChoice::Auto => None,
        PlanChoice::Apart => Some(Fusion::NONE),
        PlanChoice::Norms => Some(Fusion { norms: true, ..Fusion::NONE }),
        PlanChoice::Attention => Some(Fusion { attention: true, ..Fusion::NONE }),
        PlanChoice::Steps => Some(Fusion::STEPS),
        PlanChoice::Joined => Some(Fusion::ALL),
        PlanChoice::Exchange => Some(Fusion::EXCHANGE),
    });
    let choice = if args.sample {
        Choice::Sample { temperature: 1.0, top_k: 64, top_p: 0.95, seed: args.seed }
    } else {
        Choice::Greedy
    };
    let config = session.model.config();
    let vocab = config.vocab_size.min(config.vocab_size_per_layer_input) as u64;
    let needed = u64::from(args.depth) + u64::from(args.prompt) + u64::from(args.tokens);
    if needed > config.max_position as u64 {
        return usage(format!(
            "--depth, --prompt and --tokens are {needed} tokens together; the context holds {}",
            config.max_position
        ));
    }
    let ids = |n: u32, stream: u64| -> Vec<u32> {
        let id = |i| u32::try_from(random(args.seed ^ stream << 32, i) % vocab).unwrap_or(0);
        (0..u64::from(n)).map(id).collect()
    };
    let (depth, prompt) = (ids(args.depth, 1), ids(args.prompt, 2));

    let probe = &prompt[..prompt.len().min(PROBED)];
    let logits_finite = block_on(session.model.logits(probe, true))?.iter().all(|v| v.is_finite());
    let dispatches_per_token = one_token(&mut session.model, &prompt, choice)?;

    let mut runs = Vec::new();
    // The first run makes pipelines and warms clocks.
    for run in 0..=args.runs {
        let stats = measure(&mut session.model, &depth, &prompt, args.tokens, choice)?;
        ensure!(
            stats.tokens == args.tokens,
            "only {} of {} tokens were generated",
            stats.tokens,
            args.tokens
        );
        if run > 0 {
            runs.push(stats);
        }
    }

    let memory_bytes = session.model.memory_in_use();
    let details = Details {
        steps: if args.steps || args.profile { block_on(session.model.dispatches())? } else { Vec::new() },
        before,
    };
    let spread = |f: &dyn Fn(&Stats) -> f64| Spread::of(runs.iter().map(f).collect());
    let decode_tok_s = spread(&Stats::tokens_per_second);
    // Three tenths of a second of them, as far as there is room.
    let room = session.model.config().max_position.saturating_sub(prompt.len());
    let most = u32::try_from(room).unwrap_or(u32::MAX).min(256);
    let timed = (8..=most).rev().find(|n| f64::from(*n) <= 0.3 * decode_tok_s.median).unwrap_or(8);
    let gpu_busy = block_on(session.model.busy(&prompt, timed, choice))?;
    let read_bandwidth_gb_s = match &session.place {
        Place::Gpu(device) => Some(block_on(wgforge::autotune::read_gb_s(device))?),
        Place::Reference => None,
    };
    let figures = Figures {
        context: args.depth + args.prompt,
        prefill_tokens: args.prompt,
        prefill_tok_s: spread(&|s| f64::from(s.prompt_tokens) / s.first_token_s),
        first_token_ms: spread(&|s| s.first_token_s * 1e3),
        decode_tokens: args.tokens,
        decode_tok_s,
        dispatches_per_token,
        sampled: args.sample,
        plan: args.plan.to_possible_value().map_or_else(String::new, |v| v.get_name().to_owned()),
        weight_bytes_per_token: session.model.weight_bytes_per_token(),
        read_bandwidth_gb_s,
        gpu_busy,
        memory_bytes,
        load_s: session.load_s,
        logits_finite,
        runs: args.runs,
    };
    bench_report::print(&session, &figures, args, &details)
}

/// Dispatches of one decoded token.
fn one_token(model: &mut Model, prompt: &[u32], choice: Choice) -> Result<u32> {
    model.reset();
    // A prompt of one token takes the way of decoding.
    let request = request(prompt[..1].to_vec(), 1, choice);
    model.take_dispatches();
    block_on(model.generate(&request, &mut |_| ControlFlow::Continue(())))?;
    Ok(model.take_dispatches())
}

/// Fills the context to its depth, then runs a prompt and generates behind it.
fn measure(model: &mut Model, depth: &[u32], prompt: &[u32], tokens: u32, choice: Choice) -> Result<Stats> {
    model.reset();
    if !depth.is_empty() {
        block_on(model.generate(&request(depth.to_vec(), 1, choice), &mut |_| ControlFlow::Continue(())))?;
    }
    Ok(block_on(
        model.generate(&request(prompt.to_vec(), tokens, choice), &mut |_| ControlFlow::Continue(())),
    )?)
}

/// Nothing ends it early: random weights choose any token.
fn request(prompt: Vec<u32>, max_new: u32, choice: Choice) -> Request {
    Request { prompt, max_new, choice, stop: Vec::new() }
}
