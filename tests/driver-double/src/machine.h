// What a translated kernel needs of the machine that runs it. A thread of the card is a call of the kernel's function.

#include <fenv.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define LANES 32

enum wait { WAIT_FOR_BLOCK, WAIT_FOR_WARP };

// Operands of a matrix product in order of rows, which all lanes of a warp lay out together.
struct fragments {
  float a[LANES * 16];
  float b[LANES * 16];
};

// As `Thread` of execution.rs.
struct thread {
  uint32_t tid[3], ctaid[3], ntid[3], nctaid[3];
  uint32_t lane;
  uint32_t shared_bytes;
  uint64_t shared;
  // The allocation that was reached last.
  uint64_t start, end;
  struct fragments *fragments;
  void (*wait)(struct thread *, uint32_t);
  void (*find)(struct thread *, uint64_t address, uint64_t bytes);
  void (*fault)(const struct thread *, const char *what, uint64_t address, uint64_t bytes);
};

// Numbers in registers.

#define BITS(name, type, bits_type)            \
  static inline type name##_of(bits_type bits) {   \
    type value;                                    \
    memcpy(&value, &bits, sizeof value);           \
    return value;                                  \
  }                                                \
  static inline bits_type name##_bits(type value) { \
    bits_type bits;                                \
    memcpy(&bits, &value, sizeof bits);            \
    return bits;                                   \
  }
BITS(f32, float, uint32_t)
BITS(f64, double, uint64_t)

static inline float bf16_of(uint16_t bits) { return f32_of((uint32_t)bits << 16); }

static inline uint16_t bf16_bits(float value) {
  uint32_t bits = f32_bits(value);
  if (value != value) return 0x7fff;
  return (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

static inline uint32_t bf16_pair(float high, float low) { return (uint32_t)bf16_bits(high) << 16 | bf16_bits(low); }

static inline uint64_t f32_pair(float high, float low) { return (uint64_t)f32_bits(high) << 32 | f32_bits(low); }

static inline uint32_t tf32_bits(float value) {
  uint32_t bits = f32_bits(value);
  // Nearest, ties away from zero; what is no number stays none.
  return value != value ? bits : (bits + 0x1000) & 0xffffe000u;
}

static inline float flushed(float value) { return fabsf(value) < 0x1p-126f ? copysignf(0.0f, value) : value; }

static inline float saturated(float value) { return value > 0.0f ? (value < 1.0f ? value : 1.0f) : 0.0f; }

static inline float larger_or_none(float a, float b) { return a != a || b != b ? f32_of(0x7fffffff) : fmaxf(a, b); }

static inline float fma_down(float a, float b, float c) {
  volatile float x = a, y = b, z = c;
  int rounding = fegetround();
  fesetround(FE_DOWNWARD);
  volatile float sum = fmaf(x, y, z);
  fesetround(rounding);
  return sum;
}

static inline int32_t s32_of_f32(float value) {
  if (value != value) return 0;
  if (value >= 0x1p31f) return INT32_MAX;
  return value < -0x1p31f ? INT32_MIN : (int32_t)value;
}

static inline uint32_t u32_of_f32(float value) {
  if (!(value > 0.0f)) return 0;
  return value >= 0x1p32f ? UINT32_MAX : (uint32_t)value;
}

static inline uint32_t permuted(uint32_t a, uint32_t b, uint32_t selector) {
  uint64_t bytes = (uint64_t)b << 32 | a;
  uint32_t result = 0;
  for (int place = 0; place < 4; place++) {
    uint32_t which = selector >> (4 * place) & 15;
    uint32_t byte = bytes >> (8 * (which & 7)) & 255;
    if (which & 8) byte = byte & 128 ? 255 : 0;
    result |= byte << (8 * place);
  }
  return result;
}

static inline uint32_t field(uint32_t value, uint32_t start, uint32_t length) {
  start &= 255, length &= 255;
  uint32_t rest = start < 32 ? value >> start : 0;
  return length < 32 ? rest & ((1u << length) - 1) : rest;
}

// Memory: where an access has no place or is not aligned, the program ends.

static inline uint64_t global(struct thread *t, uint64_t address, uint64_t bytes) {
  if ((address & (bytes - 1)) || address < t->start || address + bytes > t->end) t->find(t, address, bytes);
  return address;
}

static inline uint64_t shared(struct thread *t, uint64_t address, uint64_t bytes) {
  if ((address & (bytes - 1)) || address < t->shared || address - t->shared + bytes > t->shared_bytes)
    t->fault(t, "shared memory", address, bytes);
  return address;
}

static inline uint64_t local(struct thread *t, uint64_t address, uint64_t bytes) {
  (void)t, (void)bytes;
  return address;
}

#define LOAD(name, type)                           \
  static inline type name(uint64_t address) {      \
    type value;                                    \
    memcpy(&value, (const void *)address, sizeof value); \
    return value;                                  \
  }
#define STORE(name, type)                                  \
  static inline void name(uint64_t address, type value) {  \
    memcpy((void *)address, &value, sizeof value);         \
  }
LOAD(load_8, uint8_t)
LOAD(load_16, uint16_t)
LOAD(load_32, uint32_t)
LOAD(load_64, uint64_t)
STORE(store_8, uint8_t)
STORE(store_16, uint16_t)
STORE(store_32, uint32_t)
STORE(store_64, uint64_t)

// Matrix products. Element i of a fragment in order of rows is number i % n of lane i / n, with n numbers a lane: the card's
// layout is its own affair, and programs may not know it.

static inline uint64_t place(const struct thread *t, int each, int number, int columns, bool by_row, uint32_t stride) {
  int i = (int)t->lane * each + number, row = i / columns, column = i % columns;
  return by_row ? (uint64_t)row * stride + column : (uint64_t)column * stride + row;
}

static inline void load_fragment(struct thread *t, uint64_t address, uint32_t *fragment, int registers, int bytes, int columns, bool by_row, uint32_t stride) {
  int each = registers * 4 / bytes;
  for (int number = 0; number < each; number++) {
    uint64_t from = shared(t, address + bytes * place(t, each, number, columns, by_row, stride), bytes);
    if (bytes == 4) fragment[number] = load_32(from);
    else memcpy((uint16_t *)fragment + number, (const void *)from, 2);
  }
}

static inline void store_fragment(struct thread *t, uint64_t address, const uint32_t *fragment, int registers, int columns, bool by_row, uint32_t stride) {
  for (int number = 0; number < registers; number++)
    store_32(shared(t, address + 4 * place(t, registers, number, columns, by_row, stride), 4), fragment[number]);
}

// Lays a lane's numbers out for all.
static inline void lay_out(float *all, const struct thread *t, const uint32_t *fragment, int registers, int bytes) {
  int each = registers * 4 / bytes;
  float *own = all + t->lane * each;
  for (int number = 0; number < each; number++) {
    uint16_t half;
    memcpy(&half, (const uint16_t *)fragment + number, 2);
    own[number] = bytes == 4 ? f32_of(tf32_bits(f32_of(fragment[number]))) : bf16_of(half);
  }
}

// d = a b + c, in f32; `d` may be `c`.
static void multiply(struct thread *t, const uint32_t *a, int a_registers, const uint32_t *b, int b_registers, const uint32_t *c, uint32_t *d, int bytes, int m, int n, int k) {
  lay_out(t->fragments->a, t, a, a_registers, bytes);
  lay_out(t->fragments->b, t, b, b_registers, bytes);
  t->wait(t, WAIT_FOR_WARP);
  int each = m * n / LANES;
  for (int number = 0; number < each; number++) {
    int i = (int)t->lane * each + number;
    const float *row = t->fragments->a + i / n * k, *column = t->fragments->b + i % n;
    float sum = f32_of(c[number]);
    for (int inner = 0; inner < k; inner++) sum = fmaf(row[inner], column[inner * n], sum);
    d[number] = f32_bits(sum);
  }
  t->wait(t, WAIT_FOR_WARP);
}
