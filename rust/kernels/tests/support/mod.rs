//! What the tests of drivers share: arrays in memory of their own, and steps over them. Knows no rule by name.

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

/// Numbers of a type as a buffer.
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

/// Pseudorandom numbers between -2 and 2, some of them a thousandth of that, some thirty times as large.
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

/// A matrix as it lies in memory; the flag says whether its rows there are columns of the array.
pub const fn matrix(batch: usize, rows: usize, cols: usize, transposed: bool) -> Matrix {
    Matrix { batch, rows, cols, transposed }
}

pub fn len(matrix: Matrix) -> usize {
    matrix.batch * matrix.rows * matrix.cols
}

/// An array and the memory that its pointers lead to.
#[derive(Clone)]
pub struct Owned {
    pub param: Buffer,
    pub grad: Buffer,
    /// In the order of the rule's; those of scope `all` are empty.
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
    /// An array of float64 whose states start as the rule says.
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

    /// The array as drivers take it.
    ///
    /// # Safety
    /// The pointers are good for as long as the memory lives and does not move.
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

/// What a state starts at that is no copy of the parameter.
pub fn first_value(rule: &Rule, hypers: &[f64], initial: Initial) -> f64 {
    match initial {
        Initial::Number(x) => x,
        Initial::Hyper(name) => hypers[rule.hypers.iter().position(|&hyper| hyper == name).unwrap()],
        Initial::Param => unreachable!("a copy is no one number"),
    }
}

/// What the states of scope `all` start at.
pub fn first_shared(rule: &Rule, hypers: &[f64]) -> Vec<f64> {
    let shared = rule.states.iter().filter(|state| state.scope == Scope::All);
    shared.map(|state| first_value(rule, hypers, state.initial)).collect()
}

/// Bytes of an element state, rounded up to whole words.
pub fn state_words(format: StateFormat, compute: Dtype, n: usize) -> usize {
    format.bytes(compute, n).div_ceil(8)
}

/// An element state of random numbers that are not negative.
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

/// How programs are run.
pub struct How {
    pub level: Level,
    pub threads: usize,
    pub zero_grads: bool,
    pub rounding: Rounding,
}

impl Default for How {
    fn default() -> How {
        How { level: Level::Baseline, threads: 1, zero_grads: false, rounding: Rounding::Nearest }
    }
}

/// Runs a program over arrays; `scalars` are those of each group.
pub fn run(
    rule: &'static CompiledRule,
    program: &str,
    arrays: &mut [Owned],
    how: &How,
    scalars: &mut [Vec<f64>],
    shared: &mut [f64],
) {
    let mut work = WorkList::default();
    // SAFETY: the memory lives, and is not touched, until the program has run.
    work.extend(arrays.iter_mut().map(|array| unsafe { array.array(rule) }).collect::<Vec<_>>());
    for (i, array) in arrays.iter_mut().enumerate() {
        work.set_backup(i, array.backup.as_mut_ptr().cast());
    }
    let How { level, threads, zero_grads, ref rounding } = *how;
    let mut step = Step { level, threads, scalars, zero_grads, rounding, shared, lead: 0 };
    // SAFETY: every pointer leads to a buffer of its own that is long enough; the level is one that this CPU has.
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
