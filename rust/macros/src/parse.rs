//! Parses tokens into the tree, with errors that say what was expected. Does not resolve names.

use proc_macro2::Span;
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{BinOp, Error, Ident, Lit, Result, Token, UnOp, braced, parenthesized, token};

use crate::tree::*;

mod keyword {
    syn::custom_keyword!(hyper);
    syn::custom_keyword!(def);
    syn::custom_keyword!(each_step);
    syn::custom_keyword!(nonnegative);
    syn::custom_keyword!(exact);
    syn::custom_keyword!(scratch);
    syn::custom_keyword!(raw);
    syn::custom_keyword!(save);
    syn::custom_keyword!(restore);
    syn::custom_keyword!(recall);
}

/// A function defined in a rule; each call is replaced by its body.
#[derive(Clone)]
struct Def {
    name: Ident,
    parameters: Vec<Ident>,
    statements: Vec<Statement>,
    value: Expr,
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

fn names(input: ParseStream) -> Result<Vec<Ident>> {
    let inside;
    parenthesized!(inside in input);
    Ok(Punctuated::<Ident, Token![,]>::parse_terminated(&inside)?.into_iter().collect())
}

fn parse_defs(input: ParseStream, defs: &mut Vec<Def>) -> Result<()> {
    while input.peek(keyword::def) {
        input.parse::<keyword::def>()?;
        let (name, parameters) = (input.parse()?, names(input)?);
        let body;
        braced!(body in input);
        let mut statements = Vec::new();
        while body.peek(Token![let]) {
            statement(&body, defs, &mut statements)?;
        }
        let value = expression(&body, defs, &mut statements)?;
        defs.push(Def { name, parameters, statements, value });
    }
    Ok(())
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
        if body.peek(keyword::def) {
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
        let nonnegative = input.peek(keyword::nonnegative) && input.peek2(Ident);
        if nonnegative {
            input.parse::<keyword::nonnegative>()?;
        }
        let exact = input.peek(keyword::exact) && input.peek2(Ident);
        if exact {
            input.parse::<keyword::exact>()?;
        }
        let scratch = input.peek(keyword::scratch) && input.peek2(Ident);
        if scratch {
            input.parse::<keyword::scratch>()?;
        }
        let name = input.parse()?;
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
        if inside.peek(keyword::raw) {
            inside.parse::<keyword::raw>()?;
            arguments.raw = true;
        }
        let name: Ident = inside.parse()?;
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

/// Parses one statement, preceded by the statements of the functions that it calls. `p -= x` becomes `p = p - x`.
fn statement(input: ParseStream, defs: &[Def], into: &mut Vec<Statement>) -> Result<()> {
    let recall = input.peek(keyword::recall) && input.peek2(Ident);
    let local = recall || input.peek(Token![let]);
    if recall {
        input.parse::<keyword::recall>()?;
    } else if local {
        input.parse::<Token![let]>()?;
    }
    let name: Ident = input.parse().map_err(|error| {
        Error::new(error.span(), "expected a statement: `let x = …;`, `x = …;`, or one with +=, -=, *= or /=")
    })?;
    let compound = match () {
        () if input.peek(Token![+=]) => Some("+"),
        () if input.peek(Token![-=]) => Some("-"),
        () if input.peek(Token![*=]) => Some("*"),
        () if input.peek(Token![/=]) => Some("/"),
        () => None,
    };
    if compound.is_some() && !local {
        input.parse::<BinOp>()?;
    } else {
        input.parse::<Token![=]>()?;
    }
    let value = expression(input, defs, into)?;
    input.parse::<Token![;]>()?;
    let value = match compound {
        Some(operator) => Expr::Binary(operator, Box::new(Expr::Name(name.clone())), Box::new(value)),
        None => value,
    };
    into.push(Statement { name, local, recall, value });
    Ok(())
}

fn expression(input: ParseStream, defs: &[Def], before: &mut Vec<Statement>) -> Result<Expr> {
    convert(input.parse::<syn::Expr>()?, defs, before)
}

const EXPECTED: &str =
    "expected numbers, names, + - * /, comparisons, && || !, calls of functions, or if/else with values";

fn convert(expr: syn::Expr, defs: &[Def], before: &mut Vec<Statement>) -> Result<Expr> {
    let span = expr.span();
    let wrong = || Error::new(span, EXPECTED);
    Ok(match expr {
        syn::Expr::Paren(inner) => convert(*inner.expr, defs, before)?,
        syn::Expr::Group(inner) => convert(*inner.expr, defs, before)?,
        syn::Expr::Lit(literal) => match literal.lit {
            Lit::Float(number) if number.suffix().is_empty() => Expr::Number(number.base10_digits().into(), span),
            Lit::Int(_) => return Err(Error::new(span, "numbers have a point: 1.0")),
            _ => return Err(wrong()),
        },
        syn::Expr::Path(path) => Expr::Name(path.path.require_ident().map_err(|_| wrong())?.clone()),
        syn::Expr::Unary(unary) => {
            let operator = match unary.op {
                UnOp::Neg(_) => "-",
                UnOp::Not(_) => "!",
                _ => return Err(wrong()),
            };
            Expr::Unary(operator, Box::new(convert(*unary.expr, defs, before)?))
        }
        syn::Expr::Binary(binary) => {
            let operator = match binary.op {
                BinOp::Add(_) => "+",
                BinOp::Sub(_) => "-",
                BinOp::Mul(_) => "*",
                BinOp::Div(_) => "/",
                BinOp::Eq(_) => "==",
                BinOp::Ne(_) => "!=",
                BinOp::Lt(_) => "<",
                BinOp::Le(_) => "<=",
                BinOp::Gt(_) => ">",
                BinOp::Ge(_) => ">=",
                BinOp::And(_) => "&&",
                BinOp::Or(_) => "||",
                _ => return Err(wrong()),
            };
            let left = convert(*binary.left, defs, before)?;
            Expr::Binary(operator, Box::new(left), Box::new(convert(*binary.right, defs, before)?))
        }
        syn::Expr::If(branch) => {
            let condition = convert(*branch.cond, defs, before)?;
            let yes = block_value(branch.then_branch, defs, before)?;
            let (_, other) = branch.else_branch.ok_or_else(|| Error::new(span, "an `if` needs an `else` here"))?;
            let no = match *other {
                syn::Expr::Block(block) => block_value(block.block, defs, before)?,
                other => convert(other, defs, before)?,
            };
            Expr::Call(Ident::new("select", span), vec![condition, yes, no])
        }
        syn::Expr::Call(call) => {
            let syn::Expr::Path(path) = *call.func else { return Err(wrong()) };
            let name = path.path.require_ident().map_err(|_| wrong())?.clone();
            let arguments = call.args.into_iter().map(|a| convert(a, defs, before)).collect::<Result<Vec<_>>>()?;
            match defs.iter().find(|def| def.name == name) {
                Some(def) => inline(def, &name, arguments, before)?,
                None => Expr::Call(name, arguments),
            }
        }
        _ => return Err(wrong()),
    })
}

fn block_value(block: syn::Block, defs: &[Def], before: &mut Vec<Statement>) -> Result<Expr> {
    let span = block.span();
    match <[syn::Stmt; 1]>::try_from(block.stmts) {
        Ok([syn::Stmt::Expr(value, None)]) => convert(value, defs, before),
        _ => Err(Error::new(span, "a branch must be one expression; write `let` statements before the `if`")),
    }
}

/// Inlines a call of a rule's function; its `let`s become statements before the call, under fresh names.
fn inline(def: &Def, called: &Ident, arguments: Vec<Expr>, before: &mut Vec<Statement>) -> Result<Expr> {
    if arguments.len() != def.parameters.len() {
        let message = format!("{} takes {} arguments, got {}", def.name, def.parameters.len(), arguments.len());
        return Err(Error::new(called.span(), message));
    }
    let mut known: Vec<(Ident, Expr)> = def.parameters.iter().cloned().zip(arguments).collect();
    for statement in &def.statements {
        let mut name = statement.name.clone();
        while before.iter().any(|earlier| earlier.name == name) {
            name = Ident::new(&format!("{name}_"), called.span());
        }
        let value = substitute(&statement.value, &known);
        before.push(Statement { name: name.clone(), local: true, recall: false, value });
        known.retain(|(parameter, _)| *parameter != statement.name);
        known.push((statement.name.clone(), Expr::Name(name)));
    }
    Ok(substitute(&def.value, &known))
}

fn substitute(expr: &Expr, known: &[(Ident, Expr)]) -> Expr {
    let one = |expr: &Expr| Box::new(substitute(expr, known));
    match expr {
        Expr::Name(name) => known.iter().find(|(k, _)| k == name).map_or_else(|| expr.clone(), |(_, v)| v.clone()),
        Expr::Number(..) => expr.clone(),
        Expr::Unary(operator, a) => Expr::Unary(operator, one(a)),
        Expr::Binary(operator, a, b) => Expr::Binary(operator, one(a), one(b)),
        Expr::Call(name, arguments) => {
            Expr::Call(name.clone(), arguments.iter().map(|argument| substitute(argument, known)).collect())
        }
    }
}
