//! Which tensors a checkpoint of some shape and format holds, in which order, filled with what.

use std::fmt::Write as _;

use super::SynthFormat;
use super::fill::{self, Fill, RMS_INT2, RMS_INT4, RMS_INT8};
use crate::checkpoint::Dtype;
use crate::config::Quantization;
use crate::{Result, TextConfig};

/// One tensor to be written.
#[derive(Debug, Clone)]
pub struct PlannedTensor {
    /// Its published name.
    pub name: String,
    /// How its elements are stored.
    pub dtype: Dtype,
    /// Its sizes, outermost first.
    pub shape: Vec<usize>,
    /// Where its bytes begin, counted from the end of the header.
    pub offset: u64,
    /// How many bytes it has.
    pub bytes: u64,
    fill: Fill,
    /// Whose random numbers it takes: its own, but the head takes the embedding's.
    stream: String,
}

impl PlannedTensor {
    /// Makes the bytes of this tensor from `start` on, a multiple of 8.
    pub(super) fn fill(&self, seed: u64, start: u64, out: &mut [u8]) {
        fill::fill(self.fill, fill::key(seed, &self.stream), start, out);
    }
}

/// Everything about a checkpoint but its numbers.
#[derive(Debug, Clone)]
pub struct Plan {
    tensors: Vec<PlannedTensor>,
    config: TextConfig,
    config_json: String,
}

const PREFIX: &str = "model.language_model.";

/// Activations have this many grid steps in their root mean square, so that 127 steps are far
/// out in their tail.
const STEPS: f32 = 35.0;

/// Root mean squares of the activations around each linear layer: in, out.
const AROUND: [(&str, f32, f32); 9] = [
    ("self_attn.q_proj", 1.04, 1.07),
    ("self_attn.k_proj", 1.04, 1.07),
    ("self_attn.v_proj", 1.04, 1.07),
    ("self_attn.o_proj", 0.7, 0.72),
    ("mlp.gate_proj", 1.04, 1.07),
    ("mlp.up_proj", 1.04, 1.07),
    ("mlp.down_proj", 0.7, 0.72),
    ("per_layer_input_gate", 1.45, 1.45),
    ("per_layer_projection", 0.9, 0.75),
];

impl Plan {
    /// Plans a checkpoint. The shape's own quantisation and tying are replaced by the format's.
    pub fn new(shape: &TextConfig, format: SynthFormat) -> Result<Self> {
        let mut config = shape.clone();
        config.quantization = None;
        config.tie_word_embeddings = true;
        if format == SynthFormat::Mobile {
            config.quantization = Some(Quantization::published(&config)?);
            config.tie_word_embeddings = false;
        }
        config.check("the shape to be written")?;
        let config_json = config.to_json()?;
        let mut builder = Builder { tensors: Vec::new(), config: &config };
        builder.model();
        let mut tensors = builder.tensors;
        // As published: wide types first, then by name, so that floats lie aligned.
        tensors.sort_by(|a, b| b.dtype.bitsize().cmp(&a.dtype.bitsize()).then_with(|| a.name.cmp(&b.name)));
        let mut offset = 0;
        for tensor in &mut tensors {
            tensor.offset = offset;
            offset += tensor.bytes;
        }
        Ok(Self { tensors, config, config_json })
    }

    /// The tensors in the order of the file.
    pub fn tensors(&self) -> &[PlannedTensor] {
        &self.tensors
    }

    /// Bytes of all tensors together, without the header.
    pub fn data_bytes(&self) -> u64 {
        self.tensors.iter().map(|t| t.bytes).sum()
    }

    /// The configuration that the checkpoint will have.
    pub fn config(&self) -> &TextConfig {
        &self.config
    }

    /// The contents of `config.json`.
    pub fn config_json(&self) -> &str {
        &self.config_json
    }

    /// The contents of `generation_config.json`.
    pub fn generation_json(&self) -> String {
        let mut eos = self.config.eos.clone();
        // `<|tool_response>` ends generation too, in the published file only there.
        if eos == [1, 106] {
            eos.push(50);
        }
        let value = serde_json::json!({
            "bos_token_id": 2,
            "pad_token_id": 0,
            "eos_token_id": eos,
            "do_sample": true,
            "temperature": 1.0,
            "top_k": 64,
            "top_p": 0.95,
        });
        format!("{value:#}\n")
    }

    /// The beginning of `model.safetensors`: everything before the first tensor's bytes.
    pub fn header(&self) -> Vec<u8> {
        let mut json = String::from("{\"__metadata__\":{\"format\":\"pt\"}");
        for t in &self.tensors {
            let end = t.offset + t.bytes;
            // Writing to a string cannot fail.
            let _ = write!(
                json,
                ",\"{}\":{{\"dtype\":\"{}\",\"shape\":{:?},\"data_offsets\":[{},{end}]}}",
                t.name, t.dtype, t.shape, t.offset
            );
        }
        json.push('}');
        while json.len() % 8 != 0 {
            json.push(' ');
        }
        let mut header = (json.len() as u64).to_le_bytes().to_vec();
        header.extend_from_slice(json.as_bytes());
        header
    }
}

struct Builder<'a> {
    tensors: Vec<PlannedTensor>,
    config: &'a TextConfig,
}

impl Builder<'_> {
    fn model(&mut self) {
        let c = self.config;
        let h = c.hidden;
        self.table("embed_tokens", c.vocab_size, h, 1);
        self.table("embed_tokens_per_layer", c.vocab_size_per_layer_input, c.ple_width(), c.layers.len());
        let (name, shape) = (format!("{PREFIX}per_layer_model_projection.weight"), [c.ple_width(), h]);
        self.push(name, Dtype::BF16, &shape, Fill::Bf16(0.1));
        self.norm("per_layer_projection_norm", c.ple_dim, 1.0);
        self.norm("norm", h, 3.0);
        for layer in 0..c.layers.len() {
            self.layer(layer);
        }
        if c.quantization.is_some() {
            self.head();
        }
    }

    fn layer(&mut self, layer: usize) {
        let c = self.config;
        let (h, f, d) = (c.hidden, c.intermediate(layer), c.head_dim(layer));
        let (q, kv, owns) = (c.q_dim(layer), c.kv_dim(layer), c.owns_kv(layer));
        let at = |part: &str| format!("layers.{layer}.{part}");
        for (part, input, output) in AROUND {
            let (rows, cols) = match part {
                "self_attn.q_proj" => (q, h),
                "self_attn.k_proj" | "self_attn.v_proj" if !owns => continue,
                "self_attn.k_proj" | "self_attn.v_proj" => (kv, h),
                "self_attn.o_proj" => (h, q),
                "mlp.gate_proj" | "mlp.up_proj" => (f, h),
                "mlp.down_proj" => (h, f),
                "per_layer_input_gate" => (c.ple_dim, h),
                _ => (h, c.ple_dim),
            };
            self.linear(&at(part), rows, cols, [input / STEPS, output / STEPS]);
        }
        // Branches add less than the stream holds: with scalars below 1 it stays bounded.
        self.norm(&at("input_layernorm"), h, 1.0);
        self.norm(&at("post_attention_layernorm"), h, 0.5);
        self.norm(&at("pre_feedforward_layernorm"), h, 1.0);
        self.norm(&at("post_feedforward_layernorm"), h, 0.5);
        self.norm(&at("post_per_layer_input_norm"), h, 0.5);
        // Attention's logits get a spread of 2.
        let k_norm = 2.0 / (d as f32).sqrt();
        self.norm(&at("self_attn.q_norm"), d, 1.0);
        if owns {
            self.norm(&at("self_attn.k_norm"), d, k_norm);
        }
        self.push(format!("{PREFIX}{}", at("layer_scalar")), Dtype::BF16, &[1], Fill::Scalar);
        if c.quantization.is_some() {
            for (part, reach) in [("k_cache_scale", 6.0 * k_norm), ("v_cache_scale", 6.0)] {
                let name = format!("{PREFIX}{}", at(&format!("self_attn.{part}")));
                self.push(name, Dtype::F32, &[], Fill::Const(reach / 127.0));
            }
        }
    }

    fn norm(&mut self, module: &str, len: usize, base: f32) {
        self.push(format!("{PREFIX}{module}.weight"), Dtype::BF16, &[len], Fill::Norm(base));
    }

    /// A matrix whose output has the root mean square of its input.
    fn linear(&mut self, module: &str, rows: usize, cols: usize, grids: [f32; 2]) {
        let name = format!("{PREFIX}{module}");
        let gain = (cols as f32).sqrt().recip();
        let Some((dtype, stored, fill, rms)) = self.packing(&name, cols) else {
            return self.push(format!("{name}.weight"), Dtype::BF16, &[rows, cols], Fill::Bf16(gain));
        };
        self.push(format!("{name}.weight"), dtype, &[rows, stored], fill);
        self.push(format!("{name}.weight_scale"), Dtype::F32, &[rows, 1], Fill::Scale(gain / rms));
        for (part, step) in ["input", "output"].into_iter().zip(grids) {
            self.push(format!("{name}.{part}_activation_scale"), Dtype::F32, &[], Fill::Const(step));
        }
    }

    /// A table whose rows have the root mean square 1 after the model's own factor, the square
    /// root of the run's length.
    fn table(&mut self, module: &str, rows: usize, cols: usize, runs: usize) {
        let name = format!("{PREFIX}{module}");
        let gain = ((cols / runs) as f32).sqrt().recip();
        let Some((dtype, stored, fill, rms)) = self.packing(&name, cols) else {
            return self.push(format!("{name}.weight"), Dtype::BF16, &[rows, cols], Fill::Bf16(gain));
        };
        self.push(format!("{name}.embedding_quantized"), dtype, &[rows, stored], fill);
        self.push(format!("{name}.embedding_scale"), Dtype::F32, &[rows, runs], Fill::Scale(gain / rms));
    }

    /// The head's bytes are the embedding's; its grids are off.
    fn head(&mut self) {
        for (theirs, ours) in [("embedding_quantized", "weight"), ("embedding_scale", "weight_scale")] {
            let theirs = format!("{PREFIX}embed_tokens.{theirs}");
            if let Some(twin) = self.tensors.iter().find(|t| t.name == theirs) {
                let twin = PlannedTensor { name: format!("lm_head.{ours}"), ..twin.clone() };
                self.tensors.push(twin);
            }
        }
        for part in ["input", "output"] {
            self.push(format!("lm_head.{part}_activation_scale"), Dtype::F32, &[], Fill::Const(0.0));
        }
    }

    /// How a module's matrix is packed: type, stored columns, codes and their root mean square.
    fn packing(&self, module: &str, cols: usize) -> Option<(Dtype, usize, Fill, f32)> {
        match self.config.quantization.as_ref()?.bits(module)? {
            2 => Some((Dtype::U8, cols / 4, Fill::Int2, RMS_INT2)),
            4 => Some((Dtype::U8, cols / 2, Fill::Int4, RMS_INT4)),
            _ => Some((Dtype::I8, cols, Fill::Int8, RMS_INT8)),
        }
    }

    fn push(&mut self, name: String, dtype: Dtype, shape: &[usize], fill: Fill) {
        let elements: u64 = shape.iter().map(|&dim| dim as u64).product();
        let bytes = elements * dtype.bitsize() as u64 / 8;
        let stream = name.clone();
        self.tensors.push(PlannedTensor {
            name,
            dtype,
            shape: shape.to_vec(),
            offset: 0,
            bytes,
            fill,
            stream,
        });
    }
}
