//! What can be typed: the subcommands, their options, and the options all of them share.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Runs Gemma 4 on kernels made for the GPU at hand.
///
/// Without a subcommand: says what it found and writes a short text with the built-in demo model.
#[derive(Debug, Parser)]
#[command(name = "wgforge", version, about, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// Options every subcommand takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// Folder of a checkpoint: config.json, model.safetensors and, for text, tokenizer.json.
    /// Without it: the built-in demo model
    #[arg(long, global = true, value_name = "FOLDER")]
    pub(crate) model: Option<PathBuf>,
    /// Part of the name of the adapter to use (`wgforge doctor` lists them)
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) adapter: Option<String>,
    /// Graphics API to use, or `reference` for the CPU
    #[arg(long, global = true)]
    pub(crate) backend: Option<BackendChoice>,
    /// Tuning database to take kernels from
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) kernels: Option<PathBuf>,
    /// How to hold weights that the checkpoint stores as floats; `auto` is `int4` for run and
    /// bench, `stored` for logits and trace
    #[arg(long, global = true, default_value = "auto")]
    pub(crate) weights: WeightChoice,
    /// Type of the vectors between kernels; `auto` is f16 where the device has it
    #[arg(long, global = true, default_value = "auto")]
    pub(crate) activations: FloatChoice,
    /// Type of the KV cache; `auto` is f16 where the device has it
    #[arg(long, global = true, default_value = "auto")]
    pub(crate) kv: FloatChoice,
    /// Pretend that the device has no subgroup operations (for tests)
    #[arg(long, global = true, hide_short_help = true)]
    pub(crate) no_subgroups: bool,
    /// Pretend that shaders have no `f16` (for tests)
    #[arg(long, global = true, hide_short_help = true)]
    pub(crate) no_f16: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BackendChoice {
    Vulkan,
    Metal,
    Dx12,
    Gl,
    /// The CPU: slow, and the measure of all others
    Reference,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum WeightChoice {
    Auto,
    /// As they are in the file
    Stored,
    /// int8 in groups of 32
    Int8,
    /// int4 in groups of 32
    Int4,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FloatChoice {
    Auto,
    F32,
    F16,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Continues a text
    Run(RunArgs),
    /// Measures prefill and decode speed
    Bench(BenchArgs),
    /// Writes the logits of every token of a sequence to a file
    Logits(LogitsArgs),
    /// Writes the residual stream of every layer to a file
    Trace(TraceArgs),
    /// Writes a checkpoint of random weights in a published layout
    Synth(SynthArgs),
    /// Shows rendered shaders
    #[command(subcommand)]
    Kernels(KernelsCommand),
    /// Says which adapters there are, what they can do, and what is missing
    Doctor(DoctorArgs),
    /// Tunes the kernels for this device
    Autotune(AutotuneArgs),
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The text to continue; from standard input where it is left out
    pub(crate) prompt: Option<String>,
    /// Token ids instead of a text: "2,105,…", or a file of them; nothing is added to them
    #[arg(long, value_name = "IDS", conflicts_with = "prompt")]
    pub(crate) tokens: Option<String>,
    /// Tokens to generate at most [default: 256, or what the context still holds]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_new: Option<u32>,
    /// Randomness; 0 takes the most likely token always [default: the checkpoint's]
    #[arg(long, value_name = "T", value_parser = temperature)]
    pub(crate) temperature: Option<f32>,
    /// Choose among the K most likely tokens; 0 for no such limit [default: the checkpoint's]
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(0..=1024))]
    pub(crate) top_k: Option<u32>,
    /// Choose among the most likely tokens that reach this probability [default: the checkpoint's]
    #[arg(long, value_name = "P", value_parser = top_p)]
    pub(crate) top_p: Option<f32>,
    /// Same seed, same text [default: a new one each time, named in the statistics]
    #[arg(long, value_name = "S")]
    pub(crate) seed: Option<u64>,
    /// Keep going past the end-of-text token
    #[arg(long)]
    pub(crate) ignore_eos: bool,
    /// One JSON object at the end instead of a stream of text
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// Tokens of the prompt
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) prompt: u32,
    /// Tokens to decode
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u32).range(2..))]
    pub(crate) tokens: u32,
    /// Tokens already in the context before the prompt
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) depth: u32,
    /// Measured runs, after one for warming up
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) runs: u32,
    /// Seed of the random prompt
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Draw tokens (temperature 1, the 64 most likely, 95 % of the mass) instead of taking the most likely
    #[arg(long)]
    pub(crate) sample: bool,
    /// Also print the GPU time of every kernel of a decoded token
    #[arg(long)]
    pub(crate) profile: bool,
    /// Also print every dispatch of a decoded token: kernel, workgroups, bytes, GPU time, what it waits
    /// for, configuration
    #[arg(long)]
    pub(crate) steps: bool,
    /// Compare with an earlier run: a file that `bench --json` wrote
    #[arg(long, value_name = "FILE")]
    pub(crate) compare: Option<PathBuf>,
    /// What a decoded token joins in one dispatch; auto: what the kernels in use suggest
    #[arg(long, value_enum, default_value_t = PlanChoice::Auto)]
    pub(crate) plan: PlanChoice,
    /// One JSON object instead of a table
    #[arg(long)]
    pub(crate) json: bool,
}

/// `--plan`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PlanChoice {
    /// As the kernels in use suggest
    Auto,
    /// Every step a dispatch of its own
    Apart,
    /// Norms in the products that read them
    Norms,
    /// Rotation, cache and attention in one
    Attention,
    /// Both of these
    Steps,
    /// All that can be joined, but for q, k and v with attention
    Joined,
    /// That as well, where workgroups wait for each other's rows
    Exchange,
}

#[derive(Debug, Args)]
pub(crate) struct LogitsArgs {
    /// "2,105,…", a text file of ids, or a .safetensors file with `tokens`
    #[arg(long, value_name = "IDS")]
    pub(crate) tokens: String,
    /// File to write: `logits`, f32 [tokens, vocabulary], after the softcap
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// Feed one token at a time instead of all at once
    #[arg(long)]
    pub(crate) decode: bool,
    /// A file with `logits` of the same shape to compare with
    #[arg(long, value_name = "FILE")]
    pub(crate) reference_file: Option<PathBuf>,
    /// Results as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct TraceArgs {
    /// "2,105,…", a text file of ids, or a .safetensors file with `tokens`
    #[arg(long, value_name = "IDS")]
    pub(crate) tokens: String,
    /// File to write: `hidden`, f32 [layers + 1, tokens, hidden]
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// A file with `hidden` of the same shape: every layer gets its input from there, and its
    /// output is compared with what stands there
    #[arg(long, value_name = "FILE")]
    pub(crate) inject: Option<PathBuf>,
    /// Results as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ShapeChoice {
    E2b,
    E4b,
    Tiny,
}

#[derive(Debug, Args)]
pub(crate) struct SynthArgs {
    /// Which model's sizes
    #[arg(long)]
    pub(crate) shape: ShapeChoice,
    /// mobile (int2, int4, int8), bf16 or `q4_0`
    #[arg(long)]
    pub(crate) format: String,
    /// Same seed, same bytes
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Folder to write
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Results as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KernelsCommand {
    /// Lists the kernel families
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Prints a kernel as it is given to the GPU
    Show(ShowArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// Name of the family, as `wgforge kernels list` prints it
    pub(crate) kernel: String,
    /// What to compute, as JSON [default: the first such shape of Gemma 4 E2B]
    #[arg(long, value_name = "JSON")]
    pub(crate) shape: Option<String>,
    /// How to compute it, as JSON; fields left out keep the default of the class
    #[arg(long, value_name = "JSON")]
    pub(crate) config: Option<String>,
    /// Which compiler the text is for
    #[arg(long, default_value = "native")]
    pub(crate) target: TargetChoice,
    /// Class of device: plain, plain-f16, subgroup32, subgroup32-f16, … [default: of this device]
    #[arg(long, value_name = "CLASS")]
    pub(crate) class: Option<String>,
    /// Text and figures as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TargetChoice {
    /// wgpu on Vulkan, Metal and Direct3D 12
    Native,
    /// Browsers
    Web,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct AutotuneArgs {
    /// Only these kernels, and what must follow them
    #[arg(long, value_name = "NAME")]
    pub(crate) kernel: Vec<String>,
    /// Under a minute on a fast GPU; what happens without --full
    #[arg(long, conflicts_with = "full")]
    pub(crate) quick: bool,
    /// As long as it pays
    #[arg(long)]
    pub(crate) full: bool,
    /// Seconds it may take in all [default: 55 quick (240 on a software adapter), 600 full]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(crate) budget: Option<u64>,
    /// Also save the result here
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Writes a page with every candidate's times here
    #[arg(long, value_name = "FILE.html")]
    pub(crate) report: Option<PathBuf>,
    /// Results as JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Inputs and search order [default: new ones every time]
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// Trusts the kernels' own times, without measuring whole tokens
    #[arg(long)]
    pub(crate) no_confirm: bool,
    /// Forgets what a run that did not finish had settled
    #[arg(long)]
    pub(crate) fresh: bool,
}

fn temperature(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(t) if t.is_finite() && t >= 0.0 => Ok(t),
        _ => Err("a temperature is a number from 0 on".into()),
    }
}

fn top_p(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(p) if p > 0.0 && p <= 1.0 => Ok(p),
        _ => Err("a probability is a number above 0 and at most 1".into()),
    }
}
