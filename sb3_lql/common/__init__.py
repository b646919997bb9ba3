"""What LQL and NC-LQL share: the chain, the critic, the policy and the training loop."""
