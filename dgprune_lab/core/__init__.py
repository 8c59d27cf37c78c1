"""The values that flow: domains, groups, statistics, scores, masks, outcomes, records and tidy tables."""
