{#- out[row] = sum of x[row, :], a workgroup a row. -#}
{{ <prelude web={web} subgroups={use.subgroups} f16={use.f16} /> }}
@group(0) @binding({{ b.x }}) var<storage, read> x: array<f32>;
@group(0) @binding({{ b.out }}) var<storage, read_write> out: array<f32>;
{{ <workgroup_reduce name="total" wg={c.wg} sg={c.sg} /> }}

@compute @workgroup_size({{ c.wg }})
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  var sum = 0.0;
  for (var i = t; i < {{ s.columns }}u; i += {{ c.wg }}u) {
    sum += x[wid.x * {{ s.columns }}u + i];
  }
  let all = total(t, sum);
  if (t == 0u) { out[wid.x] = all; }
}
