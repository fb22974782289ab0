{#- Zeros for the sums that workgroups of later dispatches add to; see codegen/src/kernels/clear.rs. -#}
{{ <prelude web={web} subgroups={use.subgroups} f16={use.f16} /> }}
@group(0) @binding({{ b.a }}) var<storage, read_write> a: array<vec4<u32>>;
@group(0) @binding({{ b.b }}) var<storage, read_write> b: array<vec4<u32>>;

@compute @workgroup_size({{ c.wg }})
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x < {{ d.a_quads }}u) { a[id.x] = vec4<u32>(); }
  if (id.x < {{ d.b_quads }}u) { b[id.x] = vec4<u32>(); }
}
