//! Parses rules into the tree: their states, stages and reductions. Does not resolve names.
//!
//! Errors say what was expected. What stands in a stage is left to `statements`.

use proc_macro2::Span;
use syn::parse::{Parse, ParseStream};
use syn::spanned::Spanned;
use syn::{Error, Ident, Lit, Result, Token, braced, parenthesized, token};

use crate::statements::{Def, def, expression, names, parse_defs, statement};
use crate::tree::*;

mod keyword {
    syn::custom_keyword!(hyper);
    syn::custom_keyword!(each_step);
    syn::custom_keyword!(raw);
    syn::custom_keyword!(save);
    syn::custom_keyword!(restore);
}

impl Parse for Family {
    fn parse(input: ParseStream) -> Result<Family> {
        input.parse::<keyword::hyper>()?;
        let hypers = names(input)?;
        input.parse::<Token![;]>()?;
        let mut defs = Vec::new();
        parse_defs(input, &mut defs)?;
        input.parse::<keyword::each_step>()?;
        let arguments = names(input)?;
        let [rate, step] = <[Ident; 2]>::try_from(arguments)
            .map_err(|_| input.error("each_step takes the learning rate and the step: each_step(lr, t)"))?;
        let body;
        braced!(body in input);
        let mut host = Vec::new();
        while !body.is_empty() {
            statement(&body, &defs, &mut host)?;
        }
        parse_defs(input, &mut defs)?;
        let mut rules = Vec::new();
        while !input.is_empty() {
            rules.push(rule(input, &defs)?);
        }
        Ok(Family { hypers, rate, step, host, rules })
    }
}

fn rule(input: ParseStream, family: &[Def]) -> Result<Rule> {
    let mut docs = Vec::new();
    for attribute in input.call(syn::Attribute::parse_outer)? {
        let value = attribute.meta.require_name_value()?;
        match &value.value {
            syn::Expr::Lit(syn::ExprLit { lit: Lit::Str(text), .. }) if value.path.is_ident("doc") => {
                docs.push(text.value());
            }
            _ => return Err(Error::new(attribute.span(), "a rule takes doc comments only")),
        }
    }
    let name = input.parse()?;
    let body;
    braced!(body in input);
    let mut defs = family.to_vec();
    let (mut states, mut programs, mut stages) = (Vec::new(), Vec::new(), Vec::new());
    while !body.is_empty() {
        if body.peek(def) {
            parse_defs(&body, &mut defs)?;
        } else if let Some(scope) = state_scope(&body) {
            parse_states(&body, scope, &mut states)?;
        } else if is_stage(&body) {
            stages.push(stage(&body, &defs)?);
        } else {
            let name: Ident = body.parse().map_err(|error| {
                Error::new(
                    error.span(),
                    "expected a state (element, backup, row, col, array, all), a stage (pass, row, col, array, all), \
                     `def`, or a program such as `look_ahead { ... }`",
                )
            })?;
            let inside;
            braced!(inside in body);
            let mut stages = Vec::new();
            while !inside.is_empty() {
                stages.push(stage(&inside, &defs)?);
            }
            programs.push(Program { name, stages });
        }
    }
    if !stages.is_empty() {
        programs.insert(0, Program { name: Ident::new("step", Span::call_site()), stages });
    }
    let (hypers, host, scalars, rows, cols) = Default::default();
    Ok(Rule { docs, name, hypers, host, states, programs, scalars, array_scalars: 0, rows, cols })
}

fn scope_of(word: &Ident) -> Option<Scope> {
    use Scope::*;
    [Element, Backup, Row, Col, Matrix, Array, All].into_iter().find(|scope| word == scope.word())
}

/// Parses the scope of a state declaration, if the next tokens are a scope and a name.
fn state_scope(input: ParseStream) -> Option<Scope> {
    let ahead = input.fork();
    let word: Ident = ahead.parse().ok()?;
    ahead.parse::<Ident>().ok()?;
    scope_of(&word)
}

fn parse_states(input: ParseStream, scope: Scope, states: &mut Vec<State>) -> Result<()> {
    let word: Ident = input.parse()?;
    if scope == Scope::Matrix {
        return Err(Error::new(word.span(), "no state has one value a matrix; use row, col or array"));
    }
    loop {
        let (mut nonnegative, mut exact, mut scratch) = (false, false, false);
        while input.peek(Ident) && input.peek2(Ident) {
            let word: Ident = input.parse()?;
            match word.to_string().as_str() {
                "nonnegative" => nonnegative = true,
                "exact" => exact = true,
                "scratch" => scratch = true,
                _ => {
                    return Err(Error::new(
                        word.span(),
                        "before a state's name there can be nonnegative, exact or scratch",
                    ));
                }
            }
        }
        let name: Ident = input.parse()?;
        if !scratch && states.last().is_some_and(|last: &State| last.scratch) {
            return Err(Error::new(name.span(), "scratch comes last among a rule's states"));
        }
        let mut initial = None;
        if input.peek(Token![=]) {
            input.parse::<Token![=]>()?;
            initial = Some(match expression(input, &[], &mut Vec::new())? {
                Expr::Name(name) if name == "p" => Initial::Param,
                value @ (Expr::Name(_) | Expr::Number(..)) => Initial::Scalar(value),
                _ => return Err(input.error("a state starts at a number, a hyperparameter, or p")),
            });
        }
        states.push(State { scope, name, nonnegative, exact: exact || scratch, scratch, initial });
        if input.peek(Token![;]) {
            input.parse::<Token![;]>()?;
            return Ok(());
        }
        input.parse::<Token![,]>()?;
    }
}

/// Whether the next tokens are `pass(…)`, or a scope and a brace.
fn is_stage(input: ParseStream) -> bool {
    let ahead = input.fork();
    let Ok(word) = ahead.parse::<Ident>() else { return false };
    (word == "pass" && ahead.peek(token::Paren)) || (scope_of(&word).is_some() && ahead.peek(token::Brace))
}

fn stage(input: ParseStream, defs: &[Def]) -> Result<Stage> {
    if !is_stage(input) {
        return Err(input.error("expected a stage: pass(p, g) { … }, row { … }, col { … }, array { … } or all { … }"));
    }
    let word: Ident = input.parse()?;
    let kind = match scope_of(&word) {
        None => Kind::Pass(pass_arguments(input)?),
        Some(scope @ (Scope::Row | Scope::Col | Scope::Array | Scope::All)) => Kind::Text(scope),
        Some(_) => return Err(Error::new(word.span(), "a text has the scope row, col, array or all")),
    };
    let body;
    braced!(body in input);
    let (mut statements, mut reductions) = (Vec::new(), Vec::new());
    while !body.is_empty() {
        if let Some(operation) = reduction_ahead(&body) {
            parse_reductions(&body, operation, defs, &mut statements, &mut reductions)?;
        } else if reductions.is_empty() {
            statement(&body, defs, &mut statements)?;
        } else {
            return Err(body.error("reductions come last in a stage"));
        }
    }
    Ok(Stage { kind, statements, reductions })
}

fn pass_arguments(input: ParseStream) -> Result<Arguments> {
    let inside;
    parenthesized!(inside in input);
    let mut arguments = Arguments::default();
    while !inside.is_empty() {
        let raw = inside.parse::<Option<keyword::raw>>()?.is_some();
        arguments.raw |= raw;
        let name: Ident = inside.parse()?;
        if raw && name != "g" {
            return Err(Error::new(name.span(), "only the gradient can be raw: raw g"));
        }
        match name.to_string().as_str() {
            "p" => arguments.param = true,
            "g" => arguments.grad = true,
            _ => return Err(Error::new(name.span(), "a pass takes p, g or both: pass(p, g)")),
        }
        if name == "p" && inside.peek(keyword::save) {
            inside.parse::<keyword::save>()?;
            arguments.save = Some(inside.parse()?);
        } else if name == "p" && inside.peek(keyword::restore) {
            inside.parse::<keyword::restore>()?;
            arguments.restore = Some(inside.parse()?);
        }
        if !inside.is_empty() {
            inside.parse::<Token![,]>()?;
        }
    }
    Ok(arguments)
}

/// `sum array {`, `fast sum array {`, `mean row {`, `max col {`.
fn reduction_ahead(input: ParseStream) -> Option<Operation> {
    let ahead = input.fork();
    let mut word: Ident = ahead.parse().ok()?;
    let fast = word == "fast";
    if fast {
        word = ahead.parse().ok()?;
    }
    let operation = match word.to_string().as_str() {
        "sum" if fast => Operation::FastSum,
        "sum" => Operation::Sum,
        "mean" => Operation::Mean,
        "max" => Operation::Max,
        _ => return None,
    };
    ahead.parse::<Ident>().ok()?;
    ahead.peek(token::Brace).then_some(operation)
}

fn parse_reductions(
    input: ParseStream,
    operation: Operation,
    defs: &[Def],
    statements: &mut Vec<Statement>,
    reductions: &mut Vec<Reduction>,
) -> Result<()> {
    input.parse::<Ident>()?;
    if operation == Operation::FastSum {
        input.parse::<Ident>()?;
    }
    let word: Ident = input.parse()?;
    let scope = scope_of(&word)
        .filter(|scope| !matches!(scope, Scope::Element | Scope::Backup))
        .ok_or_else(|| Error::new(word.span(), "a reduction is over row, col, matrix, array or all"))?;
    let body;
    braced!(body in input);
    while !body.is_empty() {
        let name = body.parse()?;
        body.parse::<Token![=]>()?;
        let value = expression(&body, defs, statements)?;
        body.parse::<Token![;]>()?;
        reductions.push(Reduction { operation, scope, name, value });
    }
    Ok(())
}
