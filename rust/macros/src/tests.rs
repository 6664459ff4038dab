//! Tests of `rules!` on invalid rules: each error message and the tokens that it points at. Knows no optimizer.

use crate::tree::Family;
use crate::{analyze, expand};

/// Parses a family with one rule of this body.
fn read(body: &str) -> Result<String, String> {
    read_text(&family(body))
}

fn family(body: &str) -> String {
    format!("hyper(beta, eps); each_step(lr, t) {{ rate = lr; }} rule {{ {body} }}")
}

/// The error message and the tokens that it points at.
fn read_text(text: &str) -> Result<String, String> {
    let family = syn::parse_str::<Family>(text).and_then(analyze::check);
    match family.and_then(|family| expand::family(&family)) {
        Ok(tokens) => Ok(tokens.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

fn says(body: &str, message: &str) {
    assert_eq!(read(body).err().as_deref(), Some(message), "of: {body}");
}

const EXPRESSIONS: &str =
    "expected numbers, names, + - * /, comparisons, && || !, calls of functions, or if/else with values";

#[test]
fn right_texts_are_read() {
    for body in [
        "element m, nonnegative v = eps; pass(p, g) { m = g; v = g * g; p -= rate * m; }",
        "row r; col nonnegative c; pass(g) { mean row { a = g; } max col { b = abs(g); } } row { r = a; } col { c = b; }",
        "all d = 1e-6; pass(p) { sum all { s = p; } } all { d = pow(s, 2.0); }",
        "row r; pass(g) { sum row { s = g; } } row { r = cbrt(s); } pass(p, g) { p = atan2(pow(abs(g), rate), r); }",
        "backup b; pass(p restore b, g) { p = p - g; } ahead { pass(p save b) { p *= rate; } }",
        "def twice(x) { let y = x + x; y } pass(p, g) { p = twice(g) - twice(p); }",
        "pass(p, g) { fast sum array { s = g * g; } } array { q = if s > 1.0 && !(s == 2.0) { s } else { 1.0 }; } \
         pass(p) { p = p * q; }",
    ] {
        assert!(read(body).is_ok(), "{:?} of: {body}", read(body));
    }
}

#[test]
fn names() {
    says(
        "pass(p, g) { p = p - speed * g; }",
        "speed is not known here; there are decay, g, gradient_factor, l2, p, rate",
    );
    says(
        "pass(p, g) { p = tan(g); }",
        "tan is no function here; there are fma, sqrt, cbrt, abs, sign, max, min, select, pow, atan2, log",
    );
    says("pass(p, g) { p = fma(p, g); }", "fma takes 3 arguments, got 2");
    says("pass(p, g) { p = atan2(g); }", "atan2 takes 2 arguments, got 1");
    says("pass(p, g) { p = log(g); }", "log is for each_step");
    says("pass(p, g) { p = pow(g > 0.0, 2.0); }", "expected a number, found a condition");
    says("pass(p, g) { q = g; }", "q is not declared; write `let q = …` or declare it as a state");
    says("pass(p, g) { rate = g; }", "rate cannot be assigned here");
    says("row r; pass(p, g) { r = g; }", "r cannot be assigned here");
    says("pass(p) { p = g; }", "g is not known here; there are decay, gradient_factor, l2, p, rate");
    says("element m; pass(p, g) { let m = g; p = m; }", "m is declared already; use another name");
    says("pass(p, g) { let x = g; let x = p; p = x; }", "x is declared already; use another name");
    says("element m; array m; pass(p, g) { p = g; }", "m is declared twice");
    says("element rate; pass(p, g) { p = g; }", "rate is declared twice");
    says("element p; pass(p, g) { p = g; }", "p is declared twice");
    says("element m = gamma; pass(p, g) { p = g; }", "gamma is no hyperparameter; the rule has beta, eps");
    says("pass(p save m, g) { p = g; }", "m is no backup; declare it: backup m;");
    says("element m; pass(p save m, g) { p = g; }", "m is no backup; declare it: backup m;");
}

#[test]
fn expressions() {
    says("pass(p, g) { p = 2 * g; }", "numbers have a point: 1.0");
    says("pass(p, g) { p = g; p = 1.0f32; }", EXPRESSIONS);
    says("pass(p, g) { p = g % p; }", EXPRESSIONS);
    says("pass(p, g) { p = g.abs(); }", EXPRESSIONS);
    says("pass(p, g) { p = if g > 0.0 { g }; }", "an `if` needs an `else` here");
    says(
        "pass(p, g) { p = if g > 0.0 { let x = g; x } else { p }; }",
        "a branch must be one expression; write `let` statements before the `if`",
    );
    says("def twice(x) { x + x } pass(p, g) { p = twice(g, p); }", "twice takes 1 arguments, got 2");
}

#[test]
fn statements_and_stages() {
    says("pass(p, g) { sum array { s = g; } p = g; }", "reductions come last in a stage");
    says("pass(p, g) { sum planet { s = g; } }", "a reduction is over row, col, matrix, array or all");
    says("pass(p, g) { sum element { s = g; } }", "a reduction is over row, col, matrix, array or all");
    says(
        "pass(p, g) { mean matrix { s = g; } }",
        "a matrix's reduction is over its rows or columns: put it into row or col",
    );
    says("array { sum array { s = rate; } }", "no reduction over array can stand here");
    says(
        "pass(g) { mean all { s = g; } } all { t = s; }",
        "no mean is over all arrays; divide by sum all { count = 1.0; }",
    );
    says("row r; row { sum all { s = r; } }", "no reduction over all can stand here");
    says("matrix m; pass(p, g) { p = g; }", "no state has one value a matrix; use row, col or array");
    says("element { p = 1.0; }", "a text has the scope row, col, array or all");
    says("pass(q) { p = 1.0; }", "a pass takes p, g or both: pass(p, g)");
    says("pass(raw p, g) { p = g; }", "only the gradient can be raw: raw g");
    says("element m;", "a rule needs a stage, such as pass(p, g) { … }");
    says("element scratch u, m; pass(p, g) { p = g; }", "scratch comes last among a rule's states");
    says(
        "element positive m; pass(p, g) { p = g; }",
        "before a state's name there can be nonnegative, exact or scratch",
    );
    says("element m = 1.0 + eps; pass(p, g) { p = g; }", "a state starts at a number, a hyperparameter, or p");
    says("ahead { p = 1.0; }", "expected a stage: pass(p, g) { … }, row { … }, col { … }, array { … } or all { … }");
    says("pass(p, g) { 1.0; }", "expected a statement: `let x = …;`, `x = …;`, or one with +=, -=, *= or /=");
    says("pass(p, g) { p = g }", "expected `;`");
    let operands: Vec<String> = (0..15).map(|k| format!("r{k}")).collect();
    says(
        &format!("row {}; pass(p, g) {{ p = {}; }}", operands.join(", "), operands.join(" + ")),
        "a pass has at most 14 row and column operands and reduced terms",
    );
    let states: Vec<String> = (0..15).map(|k| format!("s{k}")).collect();
    says(&format!("element {}; pass(p, g) {{ p = g; }}", states.join(", ")), "a rule has at most 14 element states");
    let states: Vec<String> = (0..25).map(|k| format!("s{k}")).collect();
    says(&format!("row {}; pass(p, g) {{ p = g; }}", states.join(", ")), "a rule has at most 24 states");
}

#[test]
fn names_have_one_scope_and_a_value() {
    says("array { q = 1.0; } row { q = 2.0; } pass(p) { p = q; }", "q has the scope array already; use another name");
    says("all d; array { d = 1.0; } pass(p) { p = d; }", "d has the scope all already; use another name");
    says("array v; all { v = 1.0; } pass(p) { p = v; }", "v has the scope array already; use another name");
    says("row r; pass(g) { sum array { r = g; } }", "r has the scope row already; use another name");
    says("array { rate = 1.0; } pass(p) { p = rate; }", "rate is given; use another name");
    says("all { eps = 1.0; } pass(p) { p = eps; }", "eps is given; use another name");
    says("array { decay = 1.0; } pass(p) { p = p; }", "decay cannot be assigned here");
    says("pass(p) { p = q; } array { q = 1.0; }", "q has no value yet");
    says("pass(p) { p = q; sum array { q = p; } }", "q has no value yet");
    says("row { a = b; } row { b = 1.0; } pass(p) { p = a; }", "b has no value yet");
    says("pass(g) { sum array { s = g; } } pass(p) { p = s; } ahead { pass(p) { p = s; } }", "s has no value yet");
    says(
        "pass(g) { sum all { s = g; } } pass(p) { p = s; } all { t = s; }",
        "s is over all arrays; it has no value before the next stage `all { … }`",
    );
    says("pass(g) { sum all { s = g; } }", "no text `all { … }` follows that could use s");
    says(
        "pass(g) { sum array { s = g; } } all { t = s; } pass(p) { p = t; }",
        "s has a value for each array; a text over all arrays cannot read it",
    );
    says(
        "pass(g) { sum array { s = g; } } pass(p) { sum array { s = p; } }",
        "s is declared already; use another name",
    );
    says("array v; pass(g) { sum array { v = g; } }", "v is declared already; use another name");
    says("pass(g) { let s = g; sum array { s = s; } }", "s is declared already; use another name");
}

#[test]
fn numbers_and_conditions() {
    says("pass(p, g) { p = g > 0.0; }", "expected a number, found a condition");
    says("pass(p, g) { p = p + (g > 0.0); }", "expected a number, found a condition");
    says("pass(p, g) { p = if g { p } else { g }; }", "expected a condition such as x > 0.0, found a number");
    says("pass(p, g) { p = select(g > 0.0 && p, p, g); }", "expected a condition such as x > 0.0, found a number");
    says("pass(p, g) { p = select(!g, p, g); }", "expected a condition such as x > 0.0, found a number");
    says("pass(p, g) { sum array { s = g == p; } }", "expected a number, found a condition");
}

#[test]
fn what_is_recalled() {
    let message = "what is recalled is a factor of a fast sum of the pass before: fast sum array { uu = u * u; }";
    let rule = |between: &str| {
        format!(
            "pass(g) {{ let u = g; fast sum array {{ uu = u * u; }} }} {between} pass(p, g) {{ recall u = g; p = uu * u; }}"
        )
    };
    assert!(read(&rule("array { a = uu; }")).is_ok());
    says(&rule("all { a = 1.0; }"), message);
    says(&rule("pass(p) { p = uu; }"), message);
    says("pass(p, g) { recall u = g; p = u; }", message);
}

#[test]
fn families() {
    for (text, message) in [
        ("each_step(lr, t) {} rule { }", "expected `hyper`"),
        ("hyper(a); rule { }", "expected `each_step`"),
        ("hyper(a); each_step(lr) {} rule { }", "each_step takes the learning rate and the step: each_step(lr, t)"),
        ("hyper(a); each_step(lr, t) { lr = 1.0; } rule { }", "lr is given; use another name"),
        (
            "hyper(a); each_step(lr, t) { x = b; } rule { }",
            "b is not known here; there are a, decay, gradient_factor, l2, lr, t",
        ),
        ("hyper(a); each_step(lr, t) { let a = lr; } rule { }", "a is declared already; use another name"),
        ("hyper(a); each_step(lr, t) { let decay = lr; } rule { }", "decay is declared already; use another name"),
        ("hyper(a); each_step(lr, t) {} #[path = \"x\"] rule { }", "a rule takes doc comments only"),
    ] {
        assert_eq!(read_text(text).err().as_deref(), Some(message), "of: {text}");
    }
}

#[test]
fn an_error_points_at_the_word_that_is_wrong() {
    for (body, word) in [
        ("pass(p, g) {\n p = speed * g;\n }", "speed"),
        ("pass(p, g) {\n p = tan(g);\n }", "tan"),
        ("pass(p, g) {\n rate = g;\n }", "rate"),
        ("pass(p, g) {\n let p = g;\n }", "p"),
        ("pass(p, g) {\n p = 2 * g;\n }", "2"),
        ("pass(p, g) { \n sum planet { s = g; } }", "planet"),
    ] {
        let text = family(body);
        let error = syn::parse_str::<Family>(&text).and_then(analyze::check).err().expect(body);
        let (start, end) = (error.span().start(), error.span().end());
        let line: Vec<char> = text.lines().nth(start.line - 1).unwrap().chars().collect();
        assert_eq!(line[start.column..end.column].iter().collect::<String>(), word, "of: {body}");
    }
}
