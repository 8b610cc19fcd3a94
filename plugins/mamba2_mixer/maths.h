// The scalar mathematics of the Mamba-2 mixer, shared by kernels and host shim (FP32).
// Formulas: Dao and Gu, "Transformers are SSMs", arXiv 2405.21060, section 7, and the model's published code.
#pragma once

#include "../common/device.cuh"

namespace elastic::mamba2 {

// log(1 + e^s); above 20 the identity, as the model family's own code has it.
ELASTIC_D float softplus(float s) { return s > 20.f ? s : log1pf(expf(s)); }

ELASTIC_D float silu(float v) { return quick_divide(v, 1.f + expf(-v)); }

// Within 2^-18 of silu(v) where that is at least 2^-24 |v|, for what is rounded to two bytes next: with a third of its
// instructions.
ELASTIC_D float quick_silu(float v) {
  constexpr float kLog2E = 1.44269504f;
  return v * quick_reciprocal(1.f + quick_exp2(-kLog2E * v));
}

// The step width of one head and token. Compares are written so that a NaN passes through.
ELASTIC_D float time_step(float raw, float bias, float low, float high) {
  const float dt = softplus(raw + bias);
  return dt < low ? low : (dt > high ? high : dt);
}

// A power of two above v >= 0, at most twice as much; between 2^-126 and 2^126, so that it has an inverse.
ELASTIC_D float power_of_two_above(float v) {
  constexpr unsigned kExponent = 0x7f800000u, kOne = 0x00800000u, kLargest = 0x7e800000u;
  const unsigned exponent = bits_of_float(v) & kExponent;
  return float_of_bits(exponent + kOne < kLargest ? exponent + kOne : kLargest);
}
// 1 / a power of two between 2^-126 and 2^126.
ELASTIC_D float inverse_power(float power) { return float_of_bits(0x7f000000u - bits_of_float(power)); }

// exp(dt*A), stored as itself or as its distance from one. A decay close to one would lose its last bits, the
// same ones at every step; over thousands of tokens that bias shows, while the error of `exp - 1` does not.
struct Decay {
  float factor;
  bool near_one;  // factor is exp(dt*A) - 1
};

ELASTIC_D Decay decay_of(float dt, float a) {
  const float exponent = dt * a;
  const bool near_one = exponent > -0.5f;
  return {near_one ? expm1f(exponent) : expf(exponent), near_one};
}

// S_t = exp(dt*A) S + (dt*x) B for one element of the state.
template <bool kNearOne>
ELASTIC_D float next_state(float state, float factor, float dtx, float b) {
  return kNearOne ? fmaf(factor, state, fmaf(dtx, b, state)) : fmaf(factor, state, dtx * b);
}

}  // namespace elastic::mamba2
