-- Nothing starts in it any more; pods that run finish.
obj.spec.stopPolicy = "Hold"
return obj
