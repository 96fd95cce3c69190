"""A bidirectional LSTM whose large matrix products stand outside the loop over time.

Same mathematics and weights as `torch.nn.LSTM` (Hochreiter & Schmidhuber 1997). Only the products with the previous
hidden state are sequential; all others cover all frames at once. Both directions step together.
"""

import torch

from lib.models.cpu.convolutions import accumulate

WORTH_TURNING = 64  # fewest steps for which a transposed copy of the weights saves more time than it costs

sigmoid_backward = torch.ops.aten.sigmoid_backward.grad_input
tanh_backward = torch.ops.aten.tanh_backward.grad_input


def lstm(module, x, dtype=torch.float32):
    """Output (time, batch, 2 × hidden), float32, of a bidirectional `nn.LSTM` for x (time, batch, width).

    module: without projection or dropout; dtype: of the matrix products' factors; gates, cells and sums are float32.
    """
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    for layer in range(module.num_layers):
        x = _Layer.apply(x, dtype, *(getattr(module, f"{n}_l{layer}{way}") for way in ("", "_reverse") for n in names))
    return x


class _Layer(torch.autograd.Function):
    """One layer. Inside, time is in the order of the steps: reversed for the second direction."""

    @staticmethod
    def forward(ctx, x, dtype, *weights):
        inputs, hidden = weights[0::4], [w.to(dtype) for w in weights[1::4]]
        (time, batch, _), width = x.shape, hidden[0].shape[1]
        x = x.to(dtype)
        onto = [w.t() for w in hidden]
        if dtype == torch.float32 and time >= WORTH_TURNING:
            onto = [w.contiguous() for w in onto]
        gates = torch.empty(2, time, batch, 4 * width, device=x.device)
        for way, turned in enumerate((x, x.flip(0))):
            product = turned.flatten(0, 1) @ inputs[way].to(dtype).t()
            torch.add(product.view_as(gates[way]), weights[2 + 4 * way] + weights[3 + 4 * way], out=gates[way])
        cells, out = torch.empty(2, 2, time, batch, width, device=x.device)
        for t in range(time):
            if t:
                for way in (0, 1):
                    accumulate(gates[way, t], out[way, t - 1].to(dtype), onto[way])
            enter, forget, new, leave = gates[:, t].chunk(4, -1)
            gates[:, t, :, : 2 * width].sigmoid_()
            new.tanh_()
            leave.sigmoid_()
            torch.mul(enter, new, out=cells[:, t])
            if t:
                cells[:, t].addcmul_(forget, cells[:, t - 1])
            torch.tanh(cells[:, t], out=out[:, t]).mul_(leave)
        ctx.save_for_backward(x, gates, cells, out, *hidden, *inputs)
        return torch.cat([out[0], out[1].flip(0)], -1)

    @staticmethod
    def backward(ctx, gradient):
        x, gates, cells, out, *weights = ctx.saved_tensors
        hidden, inputs, dtype, (time, _, width) = weights[:2], weights[2:], x.dtype, out.shape[1:]
        onto_cell, change = _derivatives(gates, cells)
        forget = gates.chunk(4, -1)[1]
        by_out = torch.stack([gradient[..., :width], gradient[..., width:].flip(0)])
        by_cell = None
        for t in reversed(range(time)):  # `change` becomes the loss's gradient by the gates' inputs
            by_hidden = by_out[:, t]
            if t < time - 1:
                for way in (0, 1):
                    accumulate(by_hidden[way], change[way, t + 1].to(dtype), hidden[way])
            earlier = onto_cell[:, t].mul_(by_hidden)
            by_cell = earlier if by_cell is None else earlier.addcmul_(by_cell, forget[:, t + 1])
            change[:, t].unflatten(-1, (4, width))[:, :, :3].mul_(by_cell.unsqueeze(2))
            change[:, t, :, 3 * width :].mul_(by_hidden)
        by_x, by_weights = 0, []
        for way in (0, 1):
            turned, by_gates = (x.flip(0) if way else x), change[way].to(dtype)
            product = (by_gates.flatten(0, 1) @ inputs[way].to(dtype)).view_as(x)
            by_x = by_x + (product.flip(0) if way else product)
            by_weights.append(by_gates.flatten(0, 1).t() @ turned.flatten(0, 1))
            by_weights.append(by_gates[1:].flatten(0, 1).t() @ out[way, :-1].to(dtype).flatten(0, 1))
            by_weights += 2 * [change[way].sum((0, 1))]  # both biases
        return by_x, None, *by_weights


def _derivatives(gates, cells):
    """Local derivatives: of the output by the cell, shaped as `cells`; of both by the gates' inputs, as `gates`."""
    enter, forget, new, leave = gates.chunk(4, -1)
    onto_cell, change = torch.empty_like(cells), torch.empty_like(gates)
    by_enter, by_forget, by_new, by_leave = change.chunk(4, -1)
    squashed = cells.tanh()
    tanh_backward(leave, squashed, grad_input=onto_cell)
    sigmoid_backward(new, enter, grad_input=by_enter)
    sigmoid_backward(cells[:, :-1], forget[:, 1:], grad_input=by_forget[:, 1:])
    by_forget[:, 0] = 0
    tanh_backward(enter, new, grad_input=by_new)
    sigmoid_backward(squashed, leave, grad_input=by_leave)
    return onto_cell, change
