"""Training loops of other packages, each with torch's AdamW and with ours; skipped where it is not installed."""

import pytest
import torch

import schuss.torch

KINDS = [torch.optim.AdamW, schuss.torch.AdamW]


def network():
    torch.manual_seed(3)
    return torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Tanh(), torch.nn.Linear(7, 1))


def data():
    generator = torch.Generator().manual_seed(0)
    return torch.utils.data.TensorDataset(
        torch.randn(32, 5, generator=generator), torch.randn(32, 1, generator=generator)
    )


def assert_close(results):
    for one, other in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_accelerate_saves_and_loads(tmp_path):
    accelerate = pytest.importorskip("accelerate")
    results = []
    for kind in KINDS:
        accelerator = accelerate.Accelerator(cpu=True)
        net = network()
        optimizer = kind(net.parameters(), lr=0.05)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2)
        net, optimizer, scheduler = accelerator.prepare(net, optimizer, scheduler)

        def train(steps, net=net, optimizer=optimizer, scheduler=scheduler, accelerator=accelerator):
            x, y = data().tensors
            for _ in range(steps):
                optimizer.zero_grad()
                accelerator.backward(torch.nn.functional.mse_loss(net(x), y))
                accelerator.clip_grad_norm_(net.parameters(), 1.0)
                optimizer.step()
                scheduler.step()

        train(3)
        folder = str(tmp_path / kind.__module__)
        accelerator.save_state(folder)
        train(4)
        straight = [p.detach().clone() for p in net.parameters()]
        accelerator.load_state(folder)
        train(4)
        resumed = [p.detach().clone() for p in net.parameters()]
        assert all(map(torch.equal, straight, resumed))
        results.append(resumed)
    assert_close(results)


class Model(torch.nn.Module):
    """A model as the Trainer takes it: it returns its loss."""

    def __init__(self):
        super().__init__()
        self.net = network()

    def forward(self, x, labels):
        loss = torch.nn.functional.mse_loss(self.net(x), labels)
        return {"loss": loss}


@pytest.mark.filterwarnings("ignore")
def test_the_trainer_of_transformers_resumes(tmp_path):
    pytest.importorskip("accelerate")
    transformers = pytest.importorskip("transformers")
    rows = [{"x": x, "labels": y} for x, y in zip(*data().tensors, strict=True)]
    results = []
    for kind in KINDS:

        def run(steps, resume, kind=kind):
            torch.manual_seed(0)
            model = Model()
            arguments = transformers.TrainingArguments(
                str(tmp_path / kind.__module__), max_steps=steps, save_steps=4, per_device_train_batch_size=8, seed=1,
                use_cpu=True, report_to=[], disable_tqdm=True, remove_unused_columns=False, logging_strategy="no",
            )  # fmt: skip
            trainer = transformers.Trainer(
                model, arguments, train_dataset=rows, optimizer_cls_and_kwargs=(kind, {"lr": 0.05})
            )
            trainer.train(resume_from_checkpoint=resume)
            return [p.detach().clone() for p in model.parameters()]

        straight = run(8, False)
        checkpoint = str(tmp_path / kind.__module__ / "checkpoint-4")
        resumed = run(8, checkpoint)
        assert all(map(torch.equal, straight, resumed))
        results.append(straight)
    assert_close(results)


@pytest.mark.filterwarnings("ignore")
def test_lightning_trains_and_resumes(tmp_path):
    lightning = pytest.importorskip("lightning")
    environments = pytest.importorskip("lightning.pytorch.plugins.environments")
    alone = environments.LightningEnvironment()  # without it, it starts MPI wherever mpi4py is
    results = []
    for kind in KINDS:

        class Module(lightning.LightningModule):
            def __init__(self, kind=kind):
                super().__init__()
                self.net, self.kind = network(), kind

            def training_step(self, batch, _):
                return torch.nn.functional.mse_loss(self.net(batch[0]), batch[1])

            def configure_optimizers(self):
                optimizer = self.kind(self.parameters(), lr=0.05)
                return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]

        def run(epochs, resume=None, module=Module):
            torch.manual_seed(0)
            trainer = lightning.Trainer(
                max_epochs=epochs, accelerator="cpu", devices=1, logger=False, enable_progress_bar=False,
                enable_model_summary=False, enable_checkpointing=False, gradient_clip_val=1.0,
                plugins=[alone],
            )  # fmt: skip
            made = module()
            trainer.fit(made, torch.utils.data.DataLoader(data(), 8), ckpt_path=resume)
            return trainer, [p.detach().clone() for p in made.parameters()]

        trainer, _ = run(1)
        path = tmp_path / f"{kind.__module__}.ckpt"
        trainer.save_checkpoint(path)
        straight, resumed = run(3)[1], run(3, path)[1]
        assert all(map(torch.equal, straight, resumed))
        results.append(straight)
    assert_close(results)
