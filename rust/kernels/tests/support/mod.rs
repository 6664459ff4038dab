//! Shared by the tests of drivers: arrays with their own memory, and steps over them. Knows no rule by name.

#![allow(dead_code)] // each test uses a part

use half::{bf16, f16};
use schuss::level::Level;
use schuss::rule::{Initial, Rule, Scope};
use schuss::{
    Array, Common, CompiledRule, Decay, Dtype, Matrix, QUANTIZATION_BLOCK, Rounding, SCALES_ALIGN, StateFormat, Step,
    WorkList,
};

/// Memory of one stream, aligned to eight bytes.
pub type Buffer = Vec<u64>;

/// Numbers stored as a type in a buffer.
pub fn buffer(dtype: Dtype, values: impl IntoIterator<Item = f64>) -> Buffer {
    let mut bytes: Vec<u8> = Vec::new();
    for x in values {
        match dtype {
            Dtype::F32 => bytes.extend((x as f32).to_ne_bytes()),
            Dtype::F64 => bytes.extend(x.to_ne_bytes()),
            Dtype::F16 => bytes.extend(f16::from_f64(x).to_ne_bytes()),
            Dtype::Bf16 => bytes.extend(bf16::from_f64(x).to_ne_bytes()),
        }
    }
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes.chunks_exact(8).map(|word| u64::from_ne_bytes(word.try_into().unwrap())).collect()
}

/// The numbers in a buffer of float64.
pub fn doubles(buffer: &Buffer) -> Vec<f64> {
    buffer.iter().map(|&bits| f64::from_bits(bits)).collect()
}

/// Pseudorandom numbers between -2 and 2, some scaled by 1/1000, some by about 30.
pub fn random(seed: u64) -> impl Iterator<Item = f64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let x = (state >> 11) as f64 / (1u64 << 53) as f64 * 4.0 - 2.0;
        x * [1.0, 1e-3, 30.0][(state % 3) as usize]
    })
}

/// A matrix's memory layout; the flag says whether rows in memory are columns of the array.
pub const fn matrix(batch: usize, rows: usize, cols: usize, transposed: bool) -> Matrix {
    Matrix { batch, rows, cols, transposed, interleaved: 1 }
}

/// `count` interleaved matrices; `cols` are elements of a row in memory.
pub const fn interleaved(count: usize, rows: usize, cols: usize, transposed: bool) -> Matrix {
    Matrix { batch: 1, rows, cols, transposed, interleaved: count }
}

pub fn len(matrix: Matrix) -> usize {
    matrix.batch * matrix.rows * matrix.cols
}

/// An array and the memory that it points to.
#[derive(Clone)]
pub struct Owned {
    pub param: Buffer,
    pub grad: Buffer,
    /// In the rule's order; those of scope `all` are empty.
    pub states: Vec<Buffer>,
    pub backup: Buffer,
    pub rounded: Option<(Dtype, Buffer)>,
    pub param_type: Dtype,
    pub grad_type: Dtype,
    pub format: StateFormat,
    pub matrix: Matrix,
    pub group: usize,
}

impl Owned {
    /// An array of float64 whose states have the rule's initial values.
    pub fn doubles(rule: &Rule, hypers: &[f64], matrix: Matrix, group: usize, param: &[f64]) -> Owned {
        let states = rule.states.iter().map(|state| {
            let count = match state.scope {
                Scope::Element => param.len(),
                Scope::Row | Scope::Col => matrix.vector(state.scope),
                Scope::Array => 1,
                _ => 0,
            };
            match state.initial {
                Initial::Param => buffer(Dtype::F64, param.iter().copied()),
                initial => buffer(Dtype::F64, vec![first_value(rule, hypers, initial); count]),
            }
        });
        Owned {
            param: buffer(Dtype::F64, param.iter().copied()),
            grad: Vec::new(),
            states: states.collect(),
            backup: vec![0; param.len()],
            rounded: None,
            param_type: Dtype::F64,
            grad_type: Dtype::F64,
            format: StateFormat::Compute,
            matrix,
            group,
        }
    }

    pub fn len(&self) -> usize {
        len(self.matrix)
    }

    /// The array in the drivers' form.
    ///
    /// # Safety
    /// The pointers are valid as long as the memory lives and does not move.
    pub unsafe fn array(&mut self, rule: &'static CompiledRule) -> Array {
        let pointer = |buffer: &mut Buffer| buffer.as_mut_ptr().cast::<u8>();
        let mut array = Array::new(rule, self.group, pointer(&mut self.param), self.param_type, self.len());
        (array.grad_type, array.grad) = (self.grad_type, pointer(&mut self.grad));
        for (k, state) in rule.rule.states.iter().enumerate() {
            if !matches!(state.scope, Scope::Backup | Scope::All) {
                array.states[k] = pointer(&mut self.states[k]);
            }
        }
        array.format = self.format;
        array.rounded = self.rounded.as_mut().map(|(dtype, buffer)| (*dtype, pointer(buffer)));
        array.matrix = Some(self.matrix);
        array
    }
}

/// The initial value of a state that is not a copy of the parameter.
pub fn first_value(rule: &Rule, hypers: &[f64], initial: Initial) -> f64 {
    match initial {
        Initial::Number(x) => x,
        Initial::Hyper(name) => hypers[rule.hypers.iter().position(|&hyper| hyper == name).unwrap()],
        Initial::Param => unreachable!("a copy is no one number"),
    }
}

/// The initial values of the states of scope `all`.
pub fn first_shared(rule: &Rule, hypers: &[f64]) -> Vec<f64> {
    let shared = rule.states.iter().filter(|state| state.scope == Scope::All);
    shared.map(|state| first_value(rule, hypers, state.initial)).collect()
}

/// Words of an element state, rounded up.
pub fn state_words(format: StateFormat, compute: Dtype, n: usize) -> usize {
    format.bytes(compute, n).div_ceil(8)
}

/// An element state of random nonnegative numbers.
pub fn random_state(format: StateFormat, compute: Dtype, n: usize, seed: u64) -> Buffer {
    let sizes = || random(seed).map(f64::abs);
    match format {
        StateFormat::Compute => buffer(compute, sizes().take(n)),
        StateFormat::Bfloat16 => buffer(Dtype::Bf16, sizes().take(n)),
        StateFormat::Int8 => {
            let mut words = buffer(Dtype::F64, random(seed).take(n.next_multiple_of(SCALES_ALIGN) / 8));
            words.extend(buffer(Dtype::F32, sizes().take(n.div_ceil(QUANTIZATION_BLOCK))));
            words
        }
    }
}

/// A work list of the arrays.
///
/// # Safety
/// As for [`Owned::array`].
pub unsafe fn work_list(rule: &'static CompiledRule, arrays: &mut [Owned]) -> WorkList {
    let mut work = WorkList::default();
    // SAFETY: upheld by the caller.
    work.extend(arrays.iter_mut().map(|array| unsafe { array.array(rule) })).unwrap();
    for (i, array) in arrays.iter_mut().enumerate() {
        work.set_backup(i, array.backup.as_mut_ptr().cast());
    }
    work
}

/// The settings of a run.
pub struct Settings {
    pub level: Level,
    pub threads: usize,
    pub zero_grads: bool,
    pub rounding: Rounding,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { level: Level::Baseline, threads: 1, zero_grads: false, rounding: Rounding::Nearest }
    }
}

/// Runs a program over arrays; `scalars` are those of each group.
pub fn run(
    rule: &'static CompiledRule,
    program: &str,
    arrays: &mut [Owned],
    settings: &Settings,
    scalars: &mut [Vec<f64>],
    shared: &mut [f64],
) {
    // SAFETY: the memory lives, and is not accessed, until the program has run.
    let mut work = unsafe { work_list(rule, arrays) };
    let Settings { level, threads, zero_grads, ref rounding } = *settings;
    let mut step = Step { level, threads, scalars, zero_grads, rounding, shared, lead: 0 };
    // SAFETY: every pointer is to a separate buffer that is long enough; this CPU supports the level.
    unsafe { work.run(program, &mut step) };
}

/// The scalars of one group.
pub fn scalars(rule: &Rule, common: &Common, hypers: &[f64], t: u64, factor: f64) -> Vec<f64> {
    let mut into = Vec::new();
    rule.scalars(common, hypers, t, factor, &mut into);
    into
}

/// Weight decay that a rule applies itself.
pub fn own_decay(lr: f64) -> Common {
    Common { lr, decay: Decay::Own, ..Common::default() }
}

/// Every kind of matrix, and every kind of tail: none, one element, one column, one row, short rows, batches, rows that are not
/// a multiple of the quantization block, and arrays that are split by rows and by columns.
pub const SHAPES: [Matrix; 14] = [
    matrix(1, 0, 5, false),
    matrix(1, 1, 1, false),
    matrix(1, 7, 1, false),
    matrix(1, 1, 16, true),
    matrix(3, 1, 11, true),
    matrix(10, 10, 10, false),
    matrix(1, 1, 4097, false),
    matrix(1, 64, 64, true),
    matrix(2, 5, 300, false),
    matrix(1, 8, 4100, false),
    matrix(3, 60, 191, true),
    matrix(1, 11_000, 3, false),
    interleaved(3, 20, 60, true),
    interleaved(7, 3, 4102, false),
];

/// The configuration of a test case.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// The value of the hyperparameters that are switches.
    pub flags: f64,
    pub types: (Dtype, Dtype),
    pub format: StateFormat,
    /// Whether states are rounded to nearest.
    pub nearest: bool,
    /// Whether parameters are rounded from a float32 copy.
    pub master: bool,
    /// Whether the numbers include special ones such as NaN and infinities. These spread through sums, so there are cases
    /// without them.
    pub specials: bool,
    /// Whether the last step sets gradients to zero.
    pub zero_grads: bool,
}

pub const PLAIN: Case = Case {
    flags: 0.0,
    types: (Dtype::F32, Dtype::F32),
    format: StateFormat::Compute,
    nearest: true,
    master: false,
    specials: false,
    zero_grads: true,
};

/// Random numbers, including special values if `specials`.
pub fn numbers(dtype: Dtype, n: usize, seed: u64, specials: bool) -> Buffer {
    let tiny = if dtype == Dtype::F64 { 5e-324 } else { 1e-42 };
    let special = [f64::NAN, f64::INFINITY, -0.0, f64::NEG_INFINITY, tiny, -f64::NAN, 1e300, 6e-8];
    let one = |(i, x)| if specials && i % 97 == 5 { special[i / 97 % 8] } else { x };
    buffer(dtype, random(seed).take(n).enumerate().map(one))
}

/// Arrays of random numbers of these shapes, in two alternating groups.
pub fn arrays(rule: &CompiledRule, case: &Case, shapes: &[Matrix]) -> Vec<Owned> {
    let (param_type, grad_type) = case.types;
    let updated = if case.master { Dtype::F32 } else { param_type };
    let compute = param_type.compute();
    let one = |(i, &shape): (usize, &Matrix)| {
        let (n, seed) = (len(shape), i as u64 + 1);
        let states = rule.rule.states.iter().zip(1..).map(|(state, k)| match state.scope {
            Scope::Element => match case.format {
                format if format == StateFormat::Compute || state.exact => {
                    let state = numbers(compute, n, seed + 200 * k, case.specials);
                    // Squares are nonnegative.
                    let sign = if compute == Dtype::F64 { 1 << 63 } else { 1 << 63 | 1 << 31 };
                    state.iter().map(|bits| bits & !sign).collect()
                }
                format => random_state(format, compute, n, seed + 200 * k),
            },
            Scope::Row | Scope::Col => {
                buffer(compute, random(seed + 200 * k).take(shape.vector(state.scope)).map(f64::abs))
            }
            Scope::Array => buffer(Dtype::F64, [0.7]),
            Scope::Backup | Scope::Matrix | Scope::All => Vec::new(),
        });
        Owned {
            states: states.collect(),
            param: numbers(updated, n, seed, case.specials),
            grad: numbers(grad_type, n, seed + 100, case.specials),
            backup: vec![0; n],
            rounded: case.master.then(|| (param_type, vec![0; n])),
            param_type: updated,
            grad_type,
            format: case.format,
            matrix: shape,
            group: i % 2,
        }
    };
    shapes.iter().enumerate().map(one).collect()
}

/// Hyperparameters of a rule; `flags` is the value of those that are switches.
pub fn hypers(rule: &CompiledRule, flags: f64) -> Vec<f64> {
    let value = |&name: &&str| match name {
        "eps" => 1e-8,
        "eps1" | "eps2" | "d0" => 1e-3,
        "momentum" | "beta1" | "alpha" | "grad_scale" => 0.9,
        "beta2" | "beta3" => 0.99,
        "beta2_decay" => -0.8,
        "dampening" | "lr_decay" | "factor" | "trust_coefficient" => 0.1,
        "threshold" => 2.0 * flags,
        "weight_decay" => 0.01 * flags,
        "d" | "d_coef" | "bound" | "unit" | "initial_lr" | "gamma" => 1.0,
        "growth_rate" | "max_norm" => 1.5,
        _ => flags,
    };
    rule.rule.hypers.iter().map(value).collect()
}
