{#- Draws a token from sorted candidates: temperature, then top-k, then top-p as transformers
    orders them. The random number is a hash of (seed, position); see
    codegen/src/kernels/sample.rs. -#}
{{ <prelude web={web} subgroups={use.subgroups} f16={use.f16} /> }}
struct Sampling { temperature: f32, top_p: f32, top_k: u32, unused: u32 }
{{ <step binding={b.run} access="read_write" /> }}
@group(0) @binding({{ b.values }}) var<storage, read> values: array<f32>;
@group(0) @binding({{ b.indices }}) var<storage, read> indices: array<u32>;
@group(0) @binding({{ b.sampling }}) var<storage, read> sampling: Sampling;
@group(0) @binding({{ b.ids }}) var<storage, read_write> ids: array<u32>;
@group(0) @binding({{ b.chosen }}) var<storage, read_write> chosen: array<u32>;
{{ <emit_token ring={s.ring} /> }}
{{ <workgroup_reduce name="workgroup_sum" wg={c.wg} sg={c.sg} /> }}

const N = {{ s.n }}u;
var<workgroup> weight: array<f32, {{ s.n }}>;

// PCG-style mixing of a 32-bit word.
fn scramble(x: u32) -> u32 {
  let s = x * 747796405u + 2891336453u;
  let w = ((s >> ((s >> 28u) + 4u)) ^ s) * 277803737u;
  return (w >> 22u) ^ w;
}

@compute @workgroup_size({{ c.wg }})
fn main(@builtin(local_invocation_index) t: u32) {
  let kept = min(select(sampling.top_k, N, sampling.top_k == 0u), N);
  let top = values[0];
  var sum = 0.0;
  for (var i = t; i < N; i += {{ c.wg }}u) {
    let live = i < kept && indices[i] != 0xffffffffu;
    let w = select(0.0, exp((values[i] - top) / sampling.temperature), live);
    weight[i] = w;
    sum += w;
  }
  let total = workgroup_sum(t, sum);
  workgroupBarrier();
  if (t == 0u) {
    // A candidate stays while the mass before it is below top_p; the first always stays.
    var mass = 0.0;
    var last = 0u;
    for (var i = 0u; i < kept; i += 1u) {
      if (i > 0u && mass >= sampling.top_p * total) { break; }
      mass += weight[i];
      last = i;
    }
    let bits = scramble(run.seed_low ^ scramble(run.seed_high ^ scramble(run.position)));
    let target_mass = f32(bits >> 8u) * 5.9604644775390625e-8 * mass;
    var walked = 0.0;
    var pick = last;
    for (var i = 0u; i < last; i += 1u) {
      walked += weight[i];
      if (walked > target_mass) {
        pick = i;
        break;
      }
    }
    emit_token(indices[pick]);
  }
}
