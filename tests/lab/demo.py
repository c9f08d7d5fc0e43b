"""x"""
def provision(a):return True
def dispatch_orders(a,b):pass
